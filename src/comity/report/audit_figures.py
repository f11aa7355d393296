"""Draw one rater against another: jittered scatter, heat map of whole scores, and the mean at each level."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from comity.report.charts import HELDOUT, INK, LINE, MUTED, TRAINING
from comity.report.figures import page_style

JITTER = 0.22
"""Half the width over which a whole score is spread, so that equal points do not hide each other."""
SIZE_INCHES = (9.2, 3.1)
_WORDS = ("no", "yes")

Points = Sequence[tuple[float, float]]
"""The values of both raters on each row that both scored."""
Levels = Sequence[Mapping[str, Any]]
"""Rows of the section `levels` of audit.json: the mean of the second rater at each level of the first."""


def draw_pair(kind: str, names: tuple[str, str], points: Points, levels: Levels) -> Figure | None:
    """Return the figure of two raters; None when no row was scored by both."""
    if not points:
        return None
    highest = 1 if kind == "agreement" else 5
    with page_style():
        figure = Figure(figsize=SIZE_INCHES)
        scatter, heat, means = (figure.add_axes((left, 0.17, 0.255, 0.66)) for left in (0.065, 0.395, 0.725))
        _draw_scatter(scatter, points)
        _draw_heat(heat, points, highest)
        _draw_means(means, levels)
        titles = ("Each row, jittered", "Rows by both levels", "Mean by level, 95 % interval")
        for axes, title in zip((scatter, heat, means), titles, strict=True):
            axes.set_title(title, loc="left", size=8.5, color=INK)
            axes.set_xlim(-0.5, highest + 0.5)
            axes.set_ylim(-0.5, highest + 0.5)
            axes.set_xlabel(names[0])
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(integer=True, nbins=highest + 1))
            if kind == "agreement":
                axes.set_xticks([0, 1], _WORDS)
                axes.set_yticks([0, 1], _WORDS)
        if kind == "agreement":
            means.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        scatter.set_ylabel(names[1])
    return figure


def _draw_scatter(axes: Any, points: Points) -> None:
    spread = np.random.default_rng(0).uniform(-JITTER, JITTER, (len(points), 2))
    shown = np.array(points, float)
    # Only whole scores lie on top of each other; a score with decimals is shown where it is.
    shown += spread * (shown == np.round(shown))
    axes.plot([-0.5, 5.5], [-0.5, 5.5], color=LINE, linewidth=1)
    dot = {"alpha": 0.55, "markersize": 3.4, "markeredgewidth": 0}
    axes.plot(shown[:, 0], shown[:, 1], "o", color=TRAINING, **dot)


def _draw_heat(axes: Any, points: Points, highest: int) -> None:
    counts = np.zeros((highest + 1, highest + 1), int)
    for x, y in points:
        counts[_level(x, highest), _level(y, highest)] += 1
    axes.grid(False)
    for x, row in enumerate(counts):
        for y, count in enumerate(row):
            # Opacity and not a colour map: the page replaces the colour by one for light or dark.
            alpha = 0.55 * count / counts.max()
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=TRAINING, alpha=alpha, linewidth=0))
            if count:
                axes.text(x, y, str(count), ha="center", va="center", size=8, color=INK)


def _draw_means(axes: Any, levels: Levels) -> None:
    axes.plot([-0.5, 5.5], [-0.5, 5.5], color=LINE, linewidth=1)
    known = [row for row in levels if row["mean"]["value"] is not None]
    for row in known:
        if row["mean"]["low"] is not None:
            axes.plot([row["level"]] * 2, [row["mean"]["low"], row["mean"]["high"]], color=HELDOUT, linewidth=1.6)
        axes.text(row["level"], -0.42, f"n {row['mean']['n']}", size=6.5, color=MUTED, ha="center")
    axes.plot(
        [row["level"] for row in known], [row["mean"]["value"] for row in known], "o", color=HELDOUT, markersize=5
    )


def _level(value: float, highest: int) -> int:
    return int(min(max(np.floor(value + 0.5), 0), highest))
