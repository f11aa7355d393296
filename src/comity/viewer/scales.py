"""Axes and figures for curves: round ticks, numbers for people, points thinned, labels pushed apart."""

import itertools
import math
from collections.abc import Sequence


def choose_ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """Return round numbers from `low` to `high`, about `count` of them."""
    raw = (high - low) / count
    if not raw > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [place * step + 0.0 for place in range(first, last + 1)]


def show_number(value: float, percent: bool = False) -> str:
    """Return a figure for people: a share as a percentage, small and large numbers with three digits that count."""
    if percent:
        text = f"{100 * value:.1f} %"
    elif value == 0 or 0.01 <= abs(value) < 1000:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def show_tick(value: float, percent: bool) -> str:
    """Return the text of a tick on the y axis."""
    text = f"{100 * value:.6g} %" if percent else f"{value:.6g}"
    return text.replace("-", "−")


def thin_points(steps: Sequence[float], values: Sequence[float], most: int = 300) -> list[tuple[float, float]]:
    """Return at most `most` evenly chosen points, always the last one among them."""
    stride = max(1, math.ceil(len(steps) / most))
    places = range(len(steps) - 1, -1, -stride)
    return [(steps[place], values[place]) for place in reversed(places)]


def spread_labels(heights: Sequence[float], lowest: float, gap: float) -> list[float]:
    """Return the heights with at least `gap` between neighbours, none below `lowest` (y grows downwards)."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    spread = list(heights)
    for above, below in itertools.pairwise(order):
        spread[below] = max(spread[below], spread[above] + gap)
    floor = lowest
    for place in reversed(order):
        spread[place] = min(spread[place], floor)
        floor = spread[place] - gap
    return spread
