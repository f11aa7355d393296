"""Draw figures with matplotlib: the same data give the same bytes, as SVG and PNG files and as SVG for a page."""

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from comity.report.charts import (
    AFTER,
    BEFORE,
    COLOUR_NAMES,
    INK,
    LINE,
    MUTED,
    SURFACE,
    Chart,
    averaging_window,
    running_average,
)

Metrics = Sequence[Mapping[str, float | None]]
"""The rows of metrics.jsonl in the order of their steps."""
Comparison = Mapping[str, Mapping[str, float | int | None]]
"""What `evaluation.statistics.compare` returns."""

MOST_RAW_POINTS = 300
"""More raw points than this are thinned evenly: they only show the scatter, and a page should stay small."""
SIZE_INCHES = (4.6, 2.75)

_STYLE = {
    "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 8.5, "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED, "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "axes.linewidth": 0.8,
    "grid.color": LINE, "grid.linewidth": 0.8, "xtick.color": MUTED, "ytick.color": MUTED, "text.color": INK,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "figure.facecolor": SURFACE, "axes.facecolor": "none",
}  # fmt: skip

FOREST = (
    (100.0, "percentage points", (
        ("agreement_rate", "Agreement"), ("heldout_agreement_rate", "Agreement, held-out"),
    )),
    (1.0, "points of 5", (
        ("reward_mean", "Reward"), ("score_mean", "Answer score"), ("heldout_score_mean", "Answer score, held-out"),
    )),
    (1.0, "rounds", (("rounds_mean", "Rounds played"),)),
)  # fmt: skip
"""Panels of the before/after figure: factor, unit and measures; one unit never shares another's axis."""


def read_series(metrics: Metrics, key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values at which a metric is known; null and non-finite values are left out."""
    known = [(row["step"], row[key]) for row in metrics if row.get(key) is not None]
    pairs = [(float(s), float(v)) for s, v in known if s is not None and v is not None and math.isfinite(v)]
    return [step for step, _ in pairs], [value for _, value in pairs]


def draw_chart(chart: Chart, metrics: Metrics) -> Figure | None:
    """Return a chart over steps, None when the run has none of its metrics."""
    window = averaging_window(len(metrics))
    curves = []
    for series in chart.series:
        steps, values = read_series(metrics, series.key)
        if steps:
            curves.append((series, steps, values, running_average(values, window)))
    if not curves or (chart.kind == "stack" and len(curves) < len(chart.series)):
        return None
    with rc_context(_STYLE):
        figure, axes = _frame(chart.title)
        if chart.kind == "stack":
            marks = _draw_stack(axes, chart, metrics, window)
        else:
            marks = _draw_lines(axes, chart, curves)
        axes.set_ylim(*_limits(chart, [value for _, _, values, _ in curves for value in values]))
        steps_shown = [float(row["step"] or 0) for row in metrics]
        margin = 0.5 + (max(steps_shown) - min(steps_shown)) * 0.012
        axes.set_xlim(min(steps_shown) - margin, max(steps_shown) + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if chart.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_xlabel("step", loc="right")
        _label_directly(axes, marks)
    return figure


def draw_forest(comparison: Comparison) -> Figure | None:
    """Return the paired differences with their intervals, one panel a unit; None when nothing was scored."""
    panels = [
        (factor, unit, [(comparison[key], label) for key, label in measures if _is_known(comparison.get(key))])
        for factor, unit, measures in FOREST
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    with rc_context({**_STYLE, "axes.grid": False}):
        heights = [len(measures) for _, _, measures in panels]
        figure = Figure(figsize=(SIZE_INCHES[0], 0.45 + 0.24 * sum(heights) + 0.34 * len(panels)))
        figure.text(0.008, 0.98, "Change from before to after, 95 % interval", weight="bold", va="top", size=9.5)
        grid = figure.add_gridspec(
            len(panels), 1, height_ratios=heights, hspace=0.85, left=0.35, right=0.72, top=0.87, bottom=0.12
        )
        for place, (factor, unit, measures) in enumerate(panels):
            _draw_panel(figure.add_subplot(grid[place]), factor, unit, measures)
    return figure


def page_style() -> AbstractContextManager[None]:
    """Return the context in which every figure of a page is drawn."""
    context: AbstractContextManager[None] = rc_context(_STYLE)
    return context


def save_figure(figure: Figure, name: str, folder: Path) -> None:
    """Write FOLDER/name.svg and FOLDER/name.png; equal figures give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_text(_to_svg(figure, name), encoding="utf-8")
    with rc_context(_STYLE):
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})


def embed_svg(path: Path, description: str) -> Markup:
    """Return a saved SVG for a page: colours become the style sheet's variables, ids are unique to the figure.

    The namespaces and the document type go, so the page names no address at all.
    """
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{path.stem}-', text)
    text = re.sub(r"(url\(|href=\")#", rf"\1#{path.stem}-", text)
    for colour, name in COLOUR_NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    opening = rf'<svg \1 role="img" aria-label="{escape(description)}">'
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', opening, text, count=1)
    # Safe to mark: we drew it from numbers and our own words, never from model text.
    return Markup(text)


def _to_svg(figure: Figure, name: str) -> str:
    stream = io.StringIO()
    # Without a fixed salt and with a date, matplotlib writes other bytes at every call.
    with rc_context({**_STYLE, "svg.hashsalt": f"comity {name}"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return stream.getvalue()


def _frame(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=SIZE_INCHES)
    figure.text(0.008, 0.975, title, weight="bold", va="top", size=9.5)
    return figure, figure.add_axes((0.115, 0.16, 0.6, 0.68))


def _draw_lines(axes: Any, chart: Chart, curves: Sequence[Any]) -> list[tuple[float, str, str]]:
    """Draw raw points and averages; return (height, words, colour) of the direct labels."""
    marks = []
    for series, steps, values, average in curves:
        every = math.ceil(len(steps) / MOST_RAW_POINTS)
        raw = {"alpha": 0.3, "markersize": 2.4, "markeredgewidth": 0}
        axes.plot(steps[::every], values[::every], "o", color=series.colour, **raw)
        dash = (0, (4, 1.6)) if series.dashed else "solid"
        last = {"marker": "o", "markevery": [len(steps) - 1], "markersize": 3.6}
        axes.plot(steps, average, color=series.colour, linewidth=1.8, linestyle=dash, **last)
        marks.append((average[-1], f"{series.label} {_words(average[-1], chart.percent)}", series.colour))
    if chart.fill and len(curves) > 1:
        (first, steps, _, top), (_, other_steps, _, bottom) = curves[0], curves[-1]
        if steps == other_steps:
            axes.fill_between(steps, bottom, top, color=first.colour, alpha=0.1, linewidth=0)
            if len(curves) == 2:
                gap = top[-1] - bottom[-1]
                marks.append(((top[-1] + bottom[-1]) / 2, f"gap {gap:+.2f}", MUTED))
    return marks


def _draw_stack(axes: Any, chart: Chart, metrics: Metrics, window: int) -> list[tuple[float, str, str]]:
    complete = [row for row in metrics if all(row.get(series.key) is not None for series in chart.series)]
    steps = [float(row["step"] or 0) for row in complete]
    layers = [running_average(read_series(complete, series.key)[1], window) for series in chart.series]
    colours = [series.colour for series in chart.series]
    axes.stackplot(steps, layers, colors=colours, alpha=0.85, edgecolor=SURFACE, linewidth=0.8)
    marks, floor = [], 0.0
    for series, layer in zip(chart.series, layers, strict=True):
        colour = MUTED if series is chart.series[-1] else series.colour
        marks.append((floor + layer[-1] / 2, f"{series.label} {_words(layer[-1], chart.percent)}", colour))
        floor += layer[-1]
    return marks


def _label_directly(axes: Any, marks: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's label at its end, spread so that none lies on another."""
    low, high = axes.get_ylim()
    heights = [(value - low) / (high - low) for value, _, _ in marks]
    for height, (_, words, colour) in zip(_spread(heights, 0.092), marks, strict=True):
        axes.text(1.025, height, words, color=colour, transform=axes.transAxes, va="center", size=8.2)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return the heights (0 to 1) moved apart to at least `gap`, in the given order, kept below 1."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for below, above in itertools.pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    ceiling = 1.0
    for place in reversed(order):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - gap
    return moved


def _limits(chart: Chart, values: Sequence[float]) -> tuple[float | None, float | None]:
    low, high = chart.limits
    if high is None and low is not None:
        high = max(max(values) * 1.1, low + 1e-3)
    if low is not None and high is not None:
        # A hair of room, or a line along the border is cut in half.
        margin = (high - low) * 0.015
        return low - margin, high + margin
    centre, spread = (min(values) + max(values)) / 2, max(max(values) - min(values), abs(max(values)) * 0.02, 1e-6)
    return centre - 0.6 * spread, centre + 0.6 * spread


def _draw_panel(axes: Any, factor: float, unit: str, measures: Sequence[tuple[Mapping[str, Any], str]]) -> None:
    reach = 0.0
    for place, (result, label) in enumerate(measures):
        difference, low, high = (result[key] for key in ("difference", "low", "high"))
        low, high = (difference if low is None else low), (difference if high is None else high)
        clear = low > 0 or high < 0
        axes.plot([low * factor, high * factor], [place, place], color=AFTER, linewidth=2.2, solid_capstyle="round")
        dot = {"markerfacecolor": AFTER if clear else SURFACE, "markersize": 6.5, "markeredgewidth": 1.6}
        axes.plot([difference * factor], [place], "o", color=AFTER, **dot)
        values = f"{result['before'] * factor:.{_digits(factor)}f} → {result['after'] * factor:.{_digits(factor)}f}"
        axes.text(-0.03, place, label, transform=axes.get_yaxis_transform(), ha="right", va="center", size=8.5)
        axes.text(1.04, place, values, transform=axes.get_yaxis_transform(), va="center", size=8.5, color=MUTED)
        reach = max(reach, abs(low * factor), abs(high * factor))
    # Symmetric limits: the line of no change stands at the same place in every panel.
    reach = reach * 1.15 or 1.0
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(measures) - 0.4, -0.6)
    axes.axvline(0, color=BEFORE, linewidth=0.9, zorder=0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    axes.text(1.04, 0, unit, transform=axes.transAxes, size=7.5, color=MUTED, va="top")


def _is_known(result: Mapping[str, float | int | None] | None) -> bool:
    return result is not None and result.get("difference") is not None


def _digits(factor: float) -> int:
    return 0 if factor == 100 else 2


def _words(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.0f} %"
    return f"{value:.2f}" if 0.1 <= abs(value) < 10 else f"{value:.3g}"
