"""Curves as SVG geometry: points, ticks and labels that a template writes down, without a drawing library."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from comity.report.charts import (
    CHARTS,
    HELDOUT,
    INK,
    QUIET,
    TRAINING,
    WARNING,
    Chart,
    averaging_window,
    running_average,
)
from comity.viewer.metrics import MetricsTable
from comity.viewer.scales import choose_ticks, show_number, show_tick, spread_labels, thin_points

WIDTH, HEIGHT = 460.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 104.0, 10.0, 26.0
"""Margins; the right one holds the labels of the lines."""
LABEL_GAP = 12.0
INKS = {INK: "ink", TRAINING: "training", HELDOUT: "heldout", WARNING: "warning", QUIET: "quiet"}
"""Colour of a series in the report to its class in the viewer's style sheet."""
SPARK_WIDTH, SPARK_HEIGHT = 120.0, 28.0


@dataclass(frozen=True, slots=True)
class Curve:
    """One line over steps before it is drawn; `ink` is a class of the style sheet."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    ink: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn line: its points, its faint raw points, and where its label stands."""

    label: str
    ink: str
    dashed: bool
    points: str
    dots: tuple[tuple[float, float], ...]
    label_y: float
    last: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawn chart; `areas` are filled polygons with their class, `readout` is JSON for the pointer's read-out."""

    name: str
    section: str
    title: str
    caption: str
    lines: tuple[Line, ...]
    areas: tuple[tuple[str, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    readout: str


def draw_run(table: MetricsTable) -> list[Plot]:
    """Return every chart that a run has metrics for, then one for each metric that no chart shows."""
    plots, shown = [], {"reward/mean"}  # the mean of the groups' means, which the first chart shows
    for chart in CHARTS:
        keys = {series.key for series in chart.series}
        shown |= keys
        curves = [
            Curve(series.label, *table.series(series.key), INKS.get(series.colour, "ink"), series.dashed)
            for series in chart.series
        ]
        known = [curve for curve in curves if curve.steps]
        if known and (chart.kind == "lines" or len(known) == len(curves)):
            plots.append(draw_chart(chart, known))
    for key in sorted(table.columns):
        curve = Curve(key.rpartition("/")[2].replace("_", " "), *table.series(key), "ink")
        if key not in shown and curve.steps:
            plots.append(draw_curves(key, name_section(key), key, "", [curve]))
    return plots


def name_section(key: str) -> str:
    """Return the part of the page for a metric that no chart shows."""
    area = key.partition("/")[0]
    return area if area in ("spend", "time", "memory") else "other"


def draw_chart(chart: Chart, curves: Sequence[Curve]) -> Plot:
    """Return a chart with its known curves."""
    return draw_curves(
        chart.name, chart.section, chart.title, chart.caption, curves,
        Look(chart.limits, chart.percent, chart.fill, chart.kind == "stack"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """How a chart is drawn: limits of the y axis (None follows the data), percentages, areas, averaging."""

    limits: tuple[float | None, float | None] = (None, None)
    percent: bool = False
    fill: bool = False
    stack: bool = False
    dots: bool = True


def draw_curves(
    name: str, section: str, title: str, caption: str, curves: Sequence[Curve], look: Look = Look()
) -> Plot:
    """Return curves over steps as geometry; lines are running averages, dots single steps.

    A stack is drawn added up; its figures are those of each curve alone.
    """
    if look.stack:
        curves = _on_shared_steps(curves)
    told, curves = curves, _add_up(curves) if look.stack else curves
    averaged = [running_average(curve.values, averaging_window(len(curve.values))) for curve in curves]
    bounds = _bounds(curves, averaged, look.limits)
    x_low, x_high, y_low, y_high = bounds
    paths = [thin_points(curve.steps, mean) for curve, mean in zip(curves, averaged, strict=True)]
    heights = spread_labels([_y(points[-1][1], y_low, y_high) for points in paths], HEIGHT - BOTTOM, LABEL_GAP)
    lines = tuple(
        Line(
            label=curve.label,
            ink=curve.ink,
            dashed=curve.dashed,
            points=_points(path, bounds),
            dots=tuple(_place(point, bounds) for point in thin_points(curve.steps, curve.values))
            if look.dots and not look.stack
            else (),
            label_y=round(height, 1),
            last=show_number(alone.values[-1], look.percent),
        )
        for curve, alone, path, height in zip(curves, told, paths, heights, strict=True)
    )
    return Plot(
        name=name,
        section=section,
        title=title,
        caption=caption,
        lines=lines,
        areas=tuple(_areas(curves, paths, bounds, look)),
        x_ticks=tuple(
            Tick(round(_x(tick, x_low, x_high), 1), f"{tick:.0f}") for tick in choose_ticks(x_low, x_high, whole=True)
        ),
        y_ticks=tuple(
            Tick(round(_y(tick, y_low, y_high), 1), show_tick(tick, look.percent))
            for tick in choose_ticks(y_low, y_high)
        ),
        summary=_summarize(title, told, look.percent),
        readout=_readout(told, bounds, look.percent),
    )


def draw_spark(table: MetricsTable, key: str = "reward/mean") -> str:
    """Return the points of a sparkline, smoothed; empty with fewer than two steps."""
    steps, values = table.series(key)
    if len(steps) < 2:
        return ""
    path = thin_points(steps, running_average(values, averaging_window(len(values))), 60)
    low, high = min(v for _, v in path), max(v for _, v in path)
    span, width = (high - low) or 1.0, (path[-1][0] - path[0][0]) or 1.0
    return " ".join(
        f"{2 + (SPARK_WIDTH - 4) * (step - path[0][0]) / width:.1f},"
        f"{SPARK_HEIGHT - 3 - (SPARK_HEIGHT - 6) * (value - low) / span:.1f}"
        for step, value in path
    )


def _on_shared_steps(curves: Sequence[Curve]) -> list[Curve]:
    # Only steps that all of them know can be added up.
    known = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    steps = sorted(set(known[0]).intersection(*known[1:]))
    return [
        Curve(curve.label, steps, [values[step] for step in steps], curve.ink)
        for curve, values in zip(curves, known, strict=True)
    ]


def _add_up(curves: Sequence[Curve]) -> list[Curve]:
    sums, total = [], [0.0] * len(curves[0].steps)
    for curve in curves:
        total = [before + value for before, value in zip(total, curve.values, strict=True)]
        sums.append(Curve(curve.label, curve.steps, total, curve.ink))
    return sums


def _bounds(
    curves: Sequence[Curve], averaged: Sequence[Sequence[float]], limits: tuple[float | None, float | None]
) -> tuple[float, float, float, float]:
    steps = [step for curve in curves for step in (curve.steps[0], curve.steps[-1])]
    values = [value for curve in curves for value in curve.values] + [value for mean in averaged for value in mean]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    floor = 0.0 if low >= 0 else -math.inf  # what is never negative gets no negative axis
    y_low = limits[0] if limits[0] is not None else max(floor, low - margin)
    y_high = limits[1] if limits[1] is not None else high + margin
    x_low, x_high = min(steps), max(steps)
    return (x_low, x_high if x_high > x_low else x_low + 1, y_low, y_high if y_high > y_low else y_low + 1)


def _x(step: float, low: float, high: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (step - low) / (high - low)


def _y(value: float, low: float, high: float) -> float:
    inside = min(max(value, low), high)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (inside - low) / (high - low)


def _place(point: tuple[float, float], bounds: tuple[float, float, float, float]) -> tuple[float, float]:
    return round(_x(point[0], *bounds[:2]), 1), round(_y(point[1], *bounds[2:]), 1)


def _points(path: Sequence[tuple[float, float]], bounds: tuple[float, float, float, float]) -> str:
    return " ".join(f"{x},{y}" for x, y in (_place(point, bounds) for point in path))


def _areas(
    curves: Sequence[Curve],
    paths: Sequence[list[tuple[float, float]]],
    bounds: tuple[float, float, float, float],
    look: Look,
) -> list[tuple[str, str]]:
    if look.stack:
        floor: list[tuple[float, float]] = [(step, 0.0) for step, _ in paths[0]]
        areas = []
        for curve, path in zip(curves, paths, strict=True):
            areas.append((curve.ink, _points([*path, *reversed(floor)], bounds)))
            floor = path
        return areas
    if look.fill and len(paths) > 1:
        return [("between", _points([*paths[0], *reversed(paths[-1])], bounds))]
    return []


def _summarize(title: str, curves: Sequence[Curve], percent: bool) -> str:
    parts = [
        f"{curve.label} {show_number(curve.values[0], percent)} at step {curve.steps[0]:.0f}, "
        f"{show_number(curve.values[-1], percent)} at step {curve.steps[-1]:.0f}"
        for curve in curves
    ]
    return f"{title}: {'; '.join(parts)}."


def _readout(curves: Sequence[Curve], bounds: tuple[float, float, float, float], percent: bool) -> str:
    series = [
        {
            "label": curve.label,
            "points": [[step, float(f"{value:.4g}")] for step, value in thin_points(curve.steps, curve.values)],
        }
        for curve in curves
    ]
    frame = [LEFT, WIDTH - RIGHT, bounds[0], bounds[1]]
    return json.dumps({"x": frame, "percent": percent, "series": series}, separators=(",", ":"))
