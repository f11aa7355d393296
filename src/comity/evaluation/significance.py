"""Tests of paired differences, their correction for many tests, effect sizes, and how many scenarios a test needs.

Dialogues of one scenario are not independent. So every test here takes one value a scenario: average the runs of a
scenario first (`statistics.cluster_means`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.descriptivestats import sign_test
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_effectsize


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A two-sided test of paired scenarios: how many scenarios moved up and down, how many stayed, and the p-value."""

    name: str
    up: int
    down: int
    same: int
    p_value: float


def run_sign_test(differences: Sequence[float]) -> PairedTest:
    """Return the exact sign test of paired differences; zeros are left out (Dixon and Mood 1946). No scenario: p 1."""
    up = sum(difference > 0 for difference in differences)
    down = sum(difference < 0 for difference in differences)
    p_value = float(sign_test(np.asarray(differences, dtype=float), mu0=0)[1]) if up + down else 1.0
    return PairedTest("sign", up, down, len(differences) - up - down, min(p_value, 1.0))


def run_mcnemar_test(before: Sequence[float], after: Sequence[float]) -> PairedTest:
    """Return McNemar's exact test of paired yes-or-no outcomes, given as shares of a scenario's runs (0 to 1).

    A scenario counts as yes when more than half of its runs are; one with exactly half on either side is left out.
    Source: McNemar 1947. Raise ValueError when the lengths differ.
    """
    pairs = [(b > 0.5, a > 0.5) for b, a in zip(before, after, strict=True) if b != 0.5 and a != 0.5]
    up, down = pairs.count((False, True)), pairs.count((True, False))
    table = [[pairs.count((True, True)), down], [up, pairs.count((False, False))]]
    p_value = float(mcnemar(table, exact=True).pvalue) if up + down else 1.0
    return PairedTest("McNemar", up, down, len(pairs) - up - down, min(p_value, 1.0))


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family of tests after Holm's step-down correction (Holm 1979), in the given order."""
    if not p_values:
        return []
    return [float(value) for value in multipletests(p_values, method="holm")[1]]


def standardize_difference(differences: Sequence[float]) -> float | None:
    """Return the mean of paired differences in their standard deviations (Cohen's d_z); None without any spread."""
    if len(differences) < 2:
        return None
    deviation = float(np.std(differences, ddof=1))
    # Equal differences leave a rounding error, not a spread.
    return float(np.mean(differences)) / deviation if deviation > 1e-12 else None


def standardize_rates(before: float, after: float) -> float:
    """Return Cohen's h of two rates, 2 asin(sqrt(after)) - 2 asin(sqrt(before)) (Cohen 1988)."""
    return float(proportion_effectsize(after, before))


def scenarios_needed(difference: float, deviation: float, power: float = 0.8, level: float = 0.95) -> int:
    """Return how many scenarios a paired t-test needs to find a mean difference with this power.

    `deviation` is the standard deviation of the scenarios' differences. Raise ValueError for a difference of 0.
    """
    if difference == 0 or deviation <= 0:
        raise ValueError("a difference of 0, or one without any deviation, has no sample size")
    effect = abs(difference) / deviation
    found = TTestPower().solve_power(effect_size=effect, alpha=1 - level, power=power)
    return max(2, math.ceil(float(np.squeeze(found))))


def smallest_difference(scenarios: int, deviation: float, power: float = 0.8, level: float = 0.95) -> float:
    """Return the smallest mean difference that a paired t-test over so many scenarios finds with this power."""
    found = TTestPower().solve_power(nobs=scenarios, alpha=1 - level, power=power)
    return float(np.squeeze(found)) * deviation


def scenarios_needed_for_rates(up: float, down: float, power: float = 0.8, level: float = 0.95) -> int:
    """Return how many scenarios McNemar's test needs when shares `up` and `down` of them change each way.

    Source: Connor 1987, Sample size for testing differences in proportions for the paired-sample design.
    """
    changed, difference = up + down, up - down
    if difference == 0:
        raise ValueError("equal shares up and down have no sample size")
    alpha, beta = float(norm.ppf(1 - (1 - level) / 2)), float(norm.ppf(power))
    root = alpha * math.sqrt(changed) + beta * math.sqrt(changed - difference**2)
    return math.ceil(root**2 / difference**2)
