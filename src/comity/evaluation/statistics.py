"""Means and paired differences with intervals from a bootstrap over scenarios.

Several dialogues of one scenario are not independent, so scenarios are resampled, never single dialogues.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from comity.errors import DataError
from comity.types import Estimate

Row = Mapping[str, Any]
"""One dialogue as `runs.negotiation_row` writes it."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Means over `n` pairs scored on both sides and their difference `after - before` with its interval.

    `n_unscored` pairs lacked a value on at least one side and were left out. The means are None without any scored
    pair; `low` and `high` are None with fewer than two scenarios, which tell nothing about other scenarios.
    """

    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    n: int
    n_unscored: int


def paired_bootstrap(
    before: Sequence[float | None],
    after: Sequence[float | None],
    clusters: Sequence[str],
    seed: int,
    level: float = 0.95,
    resamples: int = 10_000,
) -> PairedDifference:
    """Return the mean paired difference with a percentile interval that resamples clusters.

    `before`, `after` and `clusters` (n,) are aligned: one entry a pair. Clusters may hold different numbers of pairs;
    the estimate is the ratio of the clusters' summed differences to their summed counts. Raise ValueError when the
    lengths differ. Source: Field and Welsh 2007, Bootstrapping clustered data (cluster bootstrap).
    """
    paired = list(zip(before, after, clusters, strict=True))
    scored = [(b, a, c) for b, a, c in paired if b is not None and a is not None and math.isfinite(b + a)]
    if not scored:
        return PairedDifference(None, None, None, None, None, 0, len(paired))
    names = sorted({cluster for _, _, cluster in scored})
    place = {name: index for index, name in enumerate(names)}
    differences, counts = np.zeros(len(names)), np.zeros(len(names))
    for b, a, cluster in scored:
        differences[place[cluster]] += a - b
        counts[place[cluster]] += 1
    low, high = None, None
    if len(names) > 1:
        low, high = _interval(differences, counts, seed, level, resamples)
    return PairedDifference(
        before=float(np.mean([b for b, _, _ in scored])),
        after=float(np.mean([a for _, a, _ in scored])),
        difference=float(differences.sum() / counts.sum()),
        low=low,
        high=high,
        n=len(scored),
        n_unscored=len(paired) - len(scored),
    )


def estimate_mean(
    values: Sequence[float | None],
    clusters: Sequence[str],
    seed: int,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Estimate:
    """Return the mean over scored values with a percentile interval that resamples clusters.

    `values` and `clusters` (n,) are aligned; None marks an unscored value. Raise ValueError when the lengths differ.
    """
    zeros = [None if value is None else 0.0 for value in values]
    found = paired_bootstrap(zeros, values, clusters, seed, level, resamples)
    return Estimate(found.after, found.low, found.high, found.n, found.n_unscored)


def cluster_means(values: Sequence[float | None], clusters: Sequence[str]) -> dict[str, float]:
    """Return the mean of the scored values of each cluster; a cluster without any is left out."""
    grouped: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if value is not None and math.isfinite(value):
            grouped.setdefault(cluster, []).append(value)
    return {cluster: sum(items) / len(items) for cluster, items in sorted(grouped.items())}


def compare(
    before_rows: Sequence[Row], after_rows: Sequence[Row], seed: int
) -> dict[str, dict[str, float | int | None]]:
    """Return the paired difference of every measure: {measure: {before, after, difference, low, high, n, n_unscored}}.

    Rows are paired by (scenario, sample); a dialogue without its partner counts as unscored. Rates are shares 0-1,
    rewards and scores points 0-5. Raise DataError when one side holds a (scenario, sample) twice.
    """
    first, second = index_dialogues(before_rows), index_dialogues(after_rows)
    keys = sorted(first.keys() | second.keys())
    results: dict[str, dict[str, float | int | None]] = {}
    for name, measure in MEASURES.items():
        before = [measure(first[key]) if key in first else None for key in keys]
        after = [measure(second[key]) if key in second else None for key in keys]
        results[name] = dataclasses.asdict(paired_bootstrap(before, after, [scenario for scenario, _ in keys], seed))
    return results


def index_dialogues(rows: Sequence[Row]) -> dict[tuple[str, int], Row]:
    """Return the rows by (scenario, sample); raise DataError when a key stands twice."""
    found: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = (str(row["scenario"]), int(row["sample"]))
        if key in found:
            raise DataError(f"scenario {key[0]!r}, sample {key[1]} stands twice: keep one dialogue of each")
        found[key] = row
    return found


def agreement(row: Row) -> float | None:
    """Return 1 for an agreed dialogue, 0 for none, None when it failed or the judge's word is unknown."""
    if row["ending"] == "agreed":
        return 1.0
    if row["ending"] != "no_agreement":
        return None
    # Without agreement the reward is a true 0: null there means that the agreement judge gave no word.
    return None if row["reward"] is None else 0.0


def rounds(row: Row) -> float | None:
    """Return the rounds played, also without agreement; None for a dialogue that failed or had one seat."""
    return float(row["rounds"]) if row["ending"] in ("agreed", "no_agreement") else None


def _value(key: str) -> Callable[[Row], float | None]:
    def read(row: Row) -> float | None:
        value = row.get(key)
        return None if value is None else float(value)

    return read


MEASURES: dict[str, Callable[[Row], float | None]] = {
    "agreement_rate": agreement,
    "reward_mean": _value("reward"),
    "rounds_mean": rounds,
    "score_mean": _value("score"),
    "heldout_agreement_rate": _value("heldout_agreed"),
    "heldout_score_mean": _value("heldout_score"),
}
"""Each measure of `compare`: what it reads from one dialogue, None when unscored."""


def _interval(
    differences: NDArray[np.float64], counts: NDArray[np.float64], seed: int, level: float, resamples: int
) -> tuple[float, float]:
    # Percentile, not BCa: BCa is undefined (nan and a warning) when every cluster has the same difference.
    result = bootstrap(
        (differences, counts),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=1000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _ratio(differences: NDArray[np.float64], counts: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = differences.sum(axis=axis) / counts.sum(axis=axis)
    return ratio
