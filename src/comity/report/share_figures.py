"""Draw shares by row and judge: endings taken for agreements by kind, attacks that succeed by family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from comity.report.charts import AFTER, BEFORE, HELDOUT, INK, TRAINING, WARNING
from comity.report.figures import page_style

COLOURS = (TRAINING, HELDOUT, AFTER, WARNING, BEFORE, INK)
"""Of the judges in their order; a seventh begins anew."""
ROW_INCHES = 0.25
LABEL_SHARE = 0.19
"""How much of the width the names of the rows take."""


@dataclass(frozen=True, slots=True)
class Share:
    """One dot: the share of `n` that `judge` gave in `row`, with its interval where there is one."""

    row: str
    judge: str
    value: float
    low: float | None
    high: float | None
    n: int


def draw_endings(endings: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return the share of YES by kind of ending with intervals (section `endings` of audit.json); None without rows."""
    shares = [
        Share(row["kind"], row["judge"], found["value"], found["low"], found["high"], found["n"])
        for row in endings
        if (found := row["said_yes"])["value"] is not None
    ]
    return _draw([("Share of YES by kind of ending, 95 % interval", shares)])


def draw_attacks(attacks: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return the share of attacks that succeed by family, one panel a kind (rows of `summarize_attacks`)."""
    panels = [
        (f"{kind.capitalize()}: attacks that succeed", [
            Share(row["family"], row["judge"], row["share"], None, None, row["tried"])
            for row in attacks
            if row["kind"] == kind and row["share"] is not None
        ])
        for kind in dict.fromkeys(row["kind"] for row in attacks)
    ]  # fmt: skip
    return _draw([panel for panel in panels if panel[1]])


def _draw(panels: Sequence[tuple[str, Sequence[Share]]]) -> Figure | None:
    everything = [share for _, shares in panels for share in shares]
    if not everything:
        return None
    rows = list(dict.fromkeys(share.row for share in everything))
    judges = list(dict.fromkeys(share.judge for share in everything))
    colours = {judge: COLOURS[place % len(COLOURS)] for place, judge in enumerate(judges)}
    inches = 0.95 + ROW_INCHES * len(rows)
    width = (0.985 - LABEL_SHARE) / len(panels)
    with page_style():
        figure = Figure(figsize=(9.2, inches))
        for place, (title, shares) in enumerate(panels):
            left = LABEL_SHARE + place * width
            axes = figure.add_axes((left, 0.3 / inches, width - 0.06, 1 - 0.85 / inches))
            _draw_panel(axes, rows, shares, colours)
            axes.set_title(title, loc="left", size=8.5, color=INK)
            axes.set_yticks(range(len(rows)), rows if place == 0 else [""] * len(rows))
            axes.tick_params(axis="y", labelcolor=INK)
        for place, judge in enumerate(judges):
            x, y = LABEL_SHARE + 0.27 * (place % 3), 1 - (0.12 + 0.16 * (place // 3)) / inches
            figure.text(x, y, f"● {judge}", color=colours[judge], size=8.5, va="center")
    return figure


def _draw_panel(axes: Any, rows: Sequence[str], shares: Sequence[Share], colours: Mapping[str, str]) -> None:
    step = 0.5 / max(len(colours) - 1, 1)
    heights = {judge: (place - (len(colours) - 1) / 2) * step for place, judge in enumerate(colours)}
    for share in shares:
        y = rows.index(share.row) + heights[share.judge]
        if share.low is not None and share.high is not None:
            axes.plot([share.low, share.high], [y, y], color=colours[share.judge], linewidth=1.4, alpha=0.6)
        axes.plot([share.value], [y], "o", color=colours[share.judge], markersize=4, markeredgewidth=0)
    for place, row in enumerate(rows):
        # Judges may have judged different rows: then each one's number stands, in their order.
        counts = dict.fromkeys(str(share.n) for share in shares if share.row == row)
        axes.text(1.06, place, f"n {'/'.join(counts)}" if counts else "", size=6.5, color=BEFORE, va="center")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
