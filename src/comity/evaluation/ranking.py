"""Bradley-Terry strengths of several models from their pairwise wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import choix
import numpy as np
from numpy.typing import NDArray

PRIOR = 0.1
"""Added to every transition rate: a model that never lost still gets a finite strength."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Strength:
    """A model's share of the summed strengths (all shares add up to 1) with its interval over scenarios.

    Strength p against q wins with probability p / (p + q). `low` and `high` are None with fewer than two scenarios.
    """

    model: str
    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One consistent pairwise outcome on one scenario: 1 when `first` won, 0 when `second` did, 0.5 for a tie."""

    scenario: str
    first: str
    second: str
    first_won: float


def fit_strengths(wins_MM: NDArray[np.float64], prior: float = PRIOR) -> NDArray[np.float64]:
    """Return the shares (M,) of M models; `wins_MM[i, j]` counts how often i won against j, ties half for each.

    Source: Bradley and Terry 1952; fitted by iterative Luce spectral ranking (Maystre and Grossglauser 2015, choix).
    """
    parameters_M = choix.ilsr_pairwise_dense(wins_MM, alpha=prior)
    strengths_M = np.exp(parameters_M - parameters_M.max())
    shares_M: NDArray[np.float64] = strengths_M / strengths_M.sum()
    return shares_M


def rank_models(models: Sequence[str], outcomes: Sequence[Outcome], seed: int, level: float = 0.95) -> list[Strength]:
    """Return every model's strength, strongest first, with a percentile interval that resamples scenarios.

    Models without any outcome are left out; [] with fewer than two models.
    """
    known = [name for name in models if any(name in (o.first, o.second) for o in outcomes)]
    if len(known) < 2:
        return []
    wins_CMM = _count_wins({name: place for place, name in enumerate(known)}, outcomes)
    shares_M = fit_strengths(wins_CMM.sum(axis=0))
    low_M: list[float | None] = [None] * len(known)
    high_M = list(low_M)
    if len(wins_CMM) > 1:
        rng = np.random.default_rng(seed)
        drawn = [
            fit_strengths(wins_CMM[rng.integers(len(wins_CMM), size=len(wins_CMM))].sum(axis=0))
            for _ in range(RESAMPLES)
        ]
        tail = 50 * (1 - level)
        low_M = np.percentile(drawn, tail, axis=0).tolist()
        high_M = np.percentile(drawn, 100 - tail, axis=0).tolist()
    ranked = [
        Strength(name, float(share), low, high)
        for name, share, low, high in zip(known, shares_M, low_M, high_M, strict=True)
    ]
    return sorted(ranked, key=lambda strength: -strength.share)


def _count_wins(places: Mapping[str, int], outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    scenarios = {name: row for row, name in enumerate(sorted({outcome.scenario for outcome in outcomes}))}
    wins_CMM = np.zeros((len(scenarios), len(places), len(places)))
    for outcome in outcomes:
        first, second = places[outcome.first], places[outcome.second]
        wins_CMM[scenarios[outcome.scenario], first, second] += outcome.first_won
        wins_CMM[scenarios[outcome.scenario], second, first] += 1 - outcome.first_won
    return wins_CMM
