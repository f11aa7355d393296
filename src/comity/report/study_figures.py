"""Curves of a study: each arm on the training dilemmas, its seeds averaged, and on held-out tasks."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from comity.report.charts import AFTER, BEFORE, CHARTS, HELDOUT, INK, TRAINING, WARNING, Chart, Series
from comity.report.figures import draw_chart, read_series

Point = Mapping[str, float | None]
Curves = Mapping[str, Sequence[Point]]
"""Rows over steps by the name of their arm; keys are those of metrics.jsonl."""
COLOURS = (TRAINING, WARNING, AFTER, HELDOUT, BEFORE, INK)
REWARD, AGREEMENT, ROUNDS = (
    next(chart for chart in CHARTS if chart.name == name) for name in ("reward", "agreement", "rounds")
)


@dataclass(frozen=True, slots=True)
class NamedFigure:
    """A figure, the name of its files and the words below it."""

    name: str
    figure: Figure
    caption: str


def draw_curves(curves: Curves, place: str, speakers: Sequence[str]) -> list[NamedFigure]:
    """Return the rewards within a group of each arm, then agreement and rounds of the `speakers` side by side.

    `place` is `training` or `held-out`. What an arm has no values of is left out.
    """
    drawn = []
    for name, points in curves.items():
        # The two-seat words for agreement say nothing of an arm that answers alone.
        chart = dataclasses.replace(REWARD, title=f"{name}: reward within a group, {place}")
        if (figure := draw_chart(chart, points)) is not None:
            drawn.append(NamedFigure(f"{place}-reward-{name}", figure, f"{chart.title}."))
    for chart, key in ((AGREEMENT, "agreement/rate"), (ROUNDS, "agreement/rounds")):
        spoken = {name: curves[name] for name in speakers if name in curves}
        joined, merged = _join(chart, key, spoken, place)
        if (figure := draw_chart(joined, merged) if merged else None) is not None:
            drawn.append(NamedFigure(f"{place}-{chart.name}", figure, f"{joined.title}."))
    return drawn


def average_seeds(runs: Sequence[Sequence[Point]]) -> list[Point]:
    """Return the mean of each metric at each step over the runs that reached it and know it."""
    values: dict[float, dict[str, list[float]]] = {}
    for metrics in runs:
        for key in dict.fromkeys(key for row in metrics for key in row):
            for step, value in zip(*read_series(metrics, key), strict=True):
                values.setdefault(step, {}).setdefault(key, []).append(value)
    return [
        {key: float(np.mean(found)) for key, found in values[step].items()} | {"step": step} for step in sorted(values)
    ]


def _join(chart: Chart, key: str, curves: Curves, place: str) -> tuple[Chart, list[dict[str, float | None]]]:
    # One metric of several arms becomes several metrics of one table.
    rows: dict[float, dict[str, float | None]] = {}
    for name, points in curves.items():
        for step, value in zip(*read_series(points, key), strict=True):
            rows.setdefault(step, {"step": step})[f"{key}/{name}"] = value
    series = tuple(
        Series(f"{key}/{name}", name, COLOURS[place % len(COLOURS)]) for place, name in enumerate(curves)
    )  # fmt: skip
    return (
        dataclasses.replace(chart, title=f"{chart.title}, {place}", series=series, fill=False),
        [rows[step] for step in sorted(rows)],
    )
