"""The figures of an audit, each with an interval that resamples whole dilemmas.

Scores of one dilemma are not independent, so dilemmas are drawn, never single rows. A figure that the rows leave
undefined (no spread, too few rows) is None, which is not zero.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import krippendorff
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import cohen_kappa_score

from comity.judges.labels import Kind
from comity.judges.metrics import SCORES

Array = NDArray[np.float64]
Values = Sequence[float | None]
"""One value a row; None means unscored."""
Measured = Mapping[str, float | None]

DEFINED_SHARE = 0.9
"""An interval needs a defined figure in at least this share of the resamples."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure over `n` complete rows with its interval; `n_unscored` rows lacked a value and were left out.

    `low` and `high` are None with fewer than two dilemmas, which tell nothing about other dilemmas.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_unscored: int


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made: percentiles of a bootstrap over clusters."""

    seed: int = 0
    resamples: int = 1000
    level: float = 0.95


def estimate(
    measure: Callable[..., Measured], columns: Sequence[Values], clusters: Sequence[str], resampling: Resampling
) -> dict[str, Figure]:
    """Return the figures that `measure` takes from aligned columns (n,), over rows where none is None or not finite.

    `measure` gets one array a column and returns the same names at every call. Clusters may hold different numbers of
    rows. Raise ValueError when the lengths differ. Source: Field and Welsh 2007, Bootstrapping clustered data.
    """
    rows = list(zip(clusters, *columns, strict=True))
    complete = [row for row in rows if all(value is not None and math.isfinite(value) for value in row[1:])]
    table = np.array([row[1:] for row in complete], float).reshape(len(complete), len(columns)).T
    found = measure(*table)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(complete):
        places.setdefault(row[0], []).append(place)
    members = [np.array(places[name]) for name in sorted(places)]
    drawn: dict[str, list[float]] = {name: [] for name in found}
    rng = np.random.default_rng(resampling.seed)
    for _ in range(resampling.resamples if len(members) > 1 else 0):
        chosen = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        for name, value in measure(*table[:, chosen]).items():
            if value is not None:
                drawn[name].append(value)
    unscored = len(rows) - len(complete)
    return {
        name: Figure(value, *_interval(value, drawn[name], resampling), len(complete), unscored)
        for name, value in found.items()
    }


def measure_pair(kind: Kind, x_N: Array, y_N: Array) -> Measured:
    """Return how far two raters agree.

    Agency: exact and within-one agreement, quadratic kappa and Krippendorff's alpha (interval) on whole scores, Pearson
    and Spearman on scores as they are. Agreement (1 for YES): exact agreement, Pearson (phi), kappa and alpha
    (nominal).
    """
    if kind == "agreement":
        return {
            "exact": share(x_N == y_N),
            "pearson": pearson(x_N, y_N),
            "kappa": kappa(x_N, y_N, (0, 1)),
            "alpha": alpha(np.stack([x_N, y_N]), "nominal"),
        }
    whole_x, whole_y = to_levels(x_N), to_levels(y_N)
    return {
        "exact": share(whole_x == whole_y),
        "within_one": share(abs(whole_x - whole_y) <= 1),
        "pearson": pearson(x_N, y_N),
        "spearman": spearman(x_N, y_N),
        "kappa": kappa(whole_x, whole_y, SCORES),
        "alpha": alpha(np.stack([whole_x, whole_y]), "interval"),
    }


def to_levels(score_N: Array) -> Array:
    """Round scores to the whole numbers 0 to 5, halves up."""
    levels_N: Array = np.clip(np.floor(score_N + 0.5), 0, 5)
    return levels_N


def mean(x_N: Array) -> float | None:
    """Return the mean, None without rows."""
    return float(x_N.mean()) if len(x_N) else None


def share(hit_N: NDArray[np.bool_]) -> float | None:
    """Return the share of True, None without rows."""
    return float(hit_N.mean()) if len(hit_N) else None


def pearson(x_N: Array, y_N: Array) -> float | None:
    """Return Pearson's correlation, None when either side has no spread."""
    return float(np.corrcoef(x_N, y_N)[0, 1]) if _spread(x_N) and _spread(y_N) else None


def spearman(x_N: Array, y_N: Array) -> float | None:
    """Return Spearman's rank correlation, None when either side has no spread."""
    return float(spearmanr(x_N, y_N).statistic) if _spread(x_N) and _spread(y_N) else None


def partial_spearman(x_N: Array, y_N: Array, given_N: Array) -> float | None:
    """Return the rank correlation of x and y with `given` held still; None when it leaves nothing of either.

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2)) on ranks (Kendall 1942).
    """
    if not (_spread(x_N) and _spread(y_N) and _spread(given_N)):
        return None
    r = np.corrcoef([rankdata(x_N), rankdata(y_N), rankdata(given_N)])
    left = (1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / math.sqrt(left)) if left > 1e-12 else None


def kappa(x_N: Array, y_N: Array, levels: Sequence[int]) -> float | None:
    """Return Cohen's kappa with quadratic weights over the given levels; None when all ratings are one level."""
    if not _spread(np.concatenate([x_N, y_N])):
        return None
    return float(cohen_kappa_score(x_N.astype(int), y_N.astype(int), labels=levels, weights="quadratic"))


def alpha(ratings_RN: Array, level: str) -> float | None:
    """Return Krippendorff's alpha of R raters; NaN is a missing rating; None when no two ratings differ or meet.

    `level` is nominal, ordinal or interval. Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability.
    """
    paired_RM = ratings_RN[:, (~np.isnan(ratings_RN)).sum(0) > 1]
    if not _spread(paired_RM[~np.isnan(paired_RM)]):
        return None
    return float(krippendorff.alpha(reliability_data=paired_RM, level_of_measurement=level))


def _spread(x_N: Array) -> bool:
    return len(x_N) > 1 and bool(x_N.min() < x_N.max())


def _interval(value: float | None, drawn: Sequence[float], resampling: Resampling) -> tuple[float | None, float | None]:
    if value is None or not drawn or len(drawn) < DEFINED_SHARE * resampling.resamples:
        return None, None
    tail = (1 - resampling.level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
