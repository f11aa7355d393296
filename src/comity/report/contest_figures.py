"""Figures of a comparison of several models: every model's figures with intervals, win rates, concession by round."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from comity.report.charts import AFTER, BEFORE, HELDOUT, INK, LINE, MUTED, SURFACE, TRAINING, WARNING
from comity.report.contest_tables import name_players
from comity.report.figures import page_style
from comity.report.tables import show

PANELS = (
    ("agreement_rate", "Agreement rate", True), ("rounds_to_agreement", "Rounds to agreement", False),
    ("score_mean", "Collective Agency (0–5)", False), ("heldout_score_mean", "The same, held-out judge", False),
    ("satisfaction_least", "Satisfaction of the worse-off", False),
)  # fmt: skip
"""Measure, title and whether it is a share, for the figure of all players."""
COLOURS = (TRAINING, HELDOUT, AFTER, WARNING, BEFORE, INK)


def draw_players(entry: Mapping[str, Any]) -> Figure | None:
    """Return every player's figures with their intervals, one panel a measure; None when nothing was scored."""
    players = entry["players"]
    panels = [
        panel
        for panel in PANELS
        if any(player["measures"].get(panel[0], {}).get("mean") is not None for player in players)
    ]
    if not panels:
        return None
    names = [name_players(player["model"], player["opponent"]) for player in players]
    with page_style():
        figure = Figure(figsize=(9.2, 1.1 + 0.32 * len(players)))
        # Names on the left take as much room as the longest needs.
        left = min(0.3, 0.03 + 0.0105 * max(map(len, names)))
        width = (0.98 - left) / len(panels)
        for place, (measure, title, is_share) in enumerate(panels):
            axes = figure.add_axes((left + place * width, 0.2, width * 0.84, 0.62))
            _draw_dots(axes, [player["measures"].get(measure) for player in players], is_share)
            axes.set_title(title, loc="left", size=8.5, color=INK)
            axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names))
            axes.tick_params(axis="y", labelcolor=INK)
    return figure


def draw_win_matrix(entry: Mapping[str, Any]) -> Figure | None:
    """Return how often the model of a row beat the model of a column; None without any pair that was judged."""
    rates = {(rate["first"], rate["second"]): rate for rate in entry["win_rates"] if rate["rate"] is not None}
    models = list(dict.fromkeys(name for pair in rates for name in pair))
    if not models:
        return None
    with page_style():
        size = len(models)
        figure = Figure(figsize=(2.2 + 1.15 * size, 1.0 + 0.8 * size))
        axes = figure.add_axes((0.26, 0.04, 0.72, 0.76))
        for row, first in enumerate(models):
            for column, second in enumerate(models):
                _draw_cell(axes, row, column, _rate_of(rates, first, second))
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.grid(False)
        axes.xaxis.tick_top()
        axes.set_xticks(range(size), models)
        axes.set_yticks(range(size), [f"{name} won" for name in models])
        axes.tick_params(labelcolor=INK)
        axes.spines["bottom"].set_visible(False)
        figure.text(0.008, 0.975, "Win rate of the row over the column", weight="bold", va="top", size=9.5)
    return figure


def draw_concession(entry: Mapping[str, Any]) -> Figure | None:
    """Return the share of the other side's own words that messages took up, over rounds; None without two rounds."""
    curves = [
        (name_players(player["model"], player["opponent"]), player["concession_by_round"])
        for player in entry["players"]
        if len(player["concession_by_round"]) > 1
    ]
    if not curves:
        return None
    with page_style():
        figure = Figure(figsize=(4.6, 2.75))
        figure.text(0.008, 0.975, "Words of the other side taken up", weight="bold", va="top", size=9.5)
        axes = figure.add_axes((0.115, 0.16, 0.52, 0.68))
        for place, (name, rounds) in enumerate(curves):
            colour = COLOURS[place % len(COLOURS)]
            numbers, shares = [item["round"] for item in rounds], [item["share"] for item in rounds]
            axes.plot(numbers, shares, "o-", color=colour, linewidth=1.8, markersize=3.6)
            height = 0.98 - 0.16 * place
            words = name.replace(" against ", "\nagainst ")
            axes.text(1.025, height, words, color=colour, transform=axes.transAxes, va="top", size=8.2)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %", decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("round", loc="right")
    return figure


def _draw_dots(axes: Any, estimates: Sequence[Mapping[str, Any] | None], is_share: bool) -> None:
    for place, estimate in enumerate(estimates):
        if estimate is None or estimate["mean"] is None:
            continue
        colour = COLOURS[place % len(COLOURS)]
        if estimate["low"] is not None:
            axes.plot([estimate["low"], estimate["high"]], [place, place], color=colour, linewidth=2.2)
        axes.plot([estimate["mean"]], [place], "o", color=colour, markersize=5.5)
        words = show(estimate["mean"], "share" if is_share else "number")
        axes.text(estimate["mean"], place - 0.22, words, color=MUTED, size=7.2, ha="center", va="bottom")
    axes.set_ylim(len(estimates) - 0.5, -0.75)
    axes.grid(True, axis="x", color=LINE)
    axes.grid(False, axis="y")
    axes.margins(x=0.18)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    if is_share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %", decimals=0))


def _rate_of(rates: Mapping[tuple[str, str], Mapping[str, Any]], first: str, second: str) -> tuple[float, ...] | None:
    if (first, second) in rates:
        rate = rates[first, second]
        return tuple(value for value in (rate["rate"], rate["low"], rate["high"]) if value is not None)
    if (second, first) in rates:
        rate = rates[second, first]
        return tuple(1 - value for value in (rate["rate"], rate["high"], rate["low"]) if value is not None)
    return None


def _draw_cell(axes: Any, row: int, column: int, rate: tuple[float, ...] | None) -> None:
    colour, strength = LINE, 0.35
    if rate is not None:
        # Half is a draw: colour says which side of it, strength how far.
        colour, strength = (AFTER if rate[0] >= 0.5 else WARNING), 0.08 + 1.1 * abs(rate[0] - 0.5)
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=strength, edgecolor=SURFACE, linewidth=1.5))
    if rate is not None:
        axes.text(column, row - 0.06, show(rate[0], "share"), ha="center", va="center", size=9.5, color=INK)
    if rate is not None and len(rate) == 3:
        words = f"{100 * rate[1]:.0f} to {100 * rate[2]:.0f}"
        axes.text(column, row + 0.22, words, ha="center", va="center", size=7.2, color=MUTED)
