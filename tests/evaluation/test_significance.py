"""Tests, corrections, effect sizes and sample sizes against hand-worked and published examples."""

import math

import pytest

from comity.evaluation.significance import (
    adjust_p_values,
    run_mcnemar_test,
    run_sign_test,
    scenarios_needed,
    scenarios_needed_for_rates,
    smallest_difference,
    standardize_difference,
    standardize_rates,
)


def test_signs_of_the_deer_legs():
    # Zar 1999, example 24.1 (hind legs longer than forelegs in 8 of 10 deer): P = 2 (45 + 10 + 1) / 1024 = 0.109375.
    result = run_sign_test([4, 4, -3, 5, -1, 5, 6, 5, 6, 2])
    assert (result.up, result.down, result.same) == (8, 2, 0)
    assert result.p_value == pytest.approx(0.109375)


def test_signs_leave_zeros_out():
    # 3 up, 0 down, 2 without a difference: 2 / 2^3 = 0.25.
    result = run_sign_test([1, 0, 2, 0, 0.5])
    assert (result.up, result.down, result.same, result.p_value) == (3, 0, 2, 0.25)
    assert run_sign_test([0, 0]).p_value == 1.0
    assert run_sign_test([]).p_value == 1.0


def test_mcnemar_by_hand():
    # 1 scenario lost agreement, 7 gained it: 2 (C(8,0) + C(8,1)) / 2^8 = 18 / 256 = 0.0703125.
    before = [1] + [0] * 7 + [1, 1, 0]
    after = [0] + [1] * 7 + [1, 1, 0]
    result = run_mcnemar_test(before, after)
    assert (result.up, result.down, result.same) == (7, 1, 3)
    assert result.p_value == pytest.approx(0.0703125)


def test_mcnemar_of_the_approval_ratings():
    # Agresti 2002, table 10.1: 794 approve twice, 150 no longer, 86 anew, 570 never. z = -64 / sqrt(236) = -4.17,
    # a two-sided P of 3.1e-5 by the normal approximation.
    cells = ((1, 1, 794), (1, 0, 150), (0, 1, 86), (0, 0, 570))
    before = [b for b, _, count in cells for _ in range(count)]
    after = [a for _, a, count in cells for _ in range(count)]
    result = run_mcnemar_test(before, after)
    assert (result.up, result.down, result.same) == (86, 150, 1364)
    assert (result.up - result.down) / math.sqrt(result.up + result.down) == pytest.approx(-4.17, abs=0.005)
    assert result.p_value == pytest.approx(3.1e-5, rel=0.25)


def test_mcnemar_takes_the_majority_of_a_scenarios_runs():
    # Two of three runs are a yes; an even split says neither, so the third scenario is left out.
    result = run_mcnemar_test([1 / 3, 1.0, 0.5], [2 / 3, 1.0, 1.0])
    assert (result.up, result.down, result.same) == (1, 0, 1)
    assert run_mcnemar_test([1.0], [1.0]).p_value == 1.0


SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Student 1908: hours of sleep gained with the one drug over the other, ten patients."""


def test_the_sleep_of_student():
    # Nine gained, none lost, one the same: 2 / 2^9. Published t is 4.0621 with n = 10, so d_z = t / sqrt(10) = 1.2846.
    result = run_sign_test(SLEEP)
    assert (result.up, result.down, result.same) == (9, 0, 1)
    assert result.p_value == pytest.approx(2 / 512)
    assert standardize_difference(SLEEP) == pytest.approx(4.0621 / math.sqrt(10), abs=1e-4)


def test_holm_by_hand():
    # The p-values are those of the example in the article "Holm-Bonferroni method" of Wikipedia: at 0.05 the fourth and
    # the first are rejected.
    # Sorted: 0.005 x 4 = 0.02; 0.01 x 3 = 0.03; 0.03 x 2 = 0.06; 0.04 x 1 = 0.04, raised to 0.06 to keep the order.
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_p_values([0.6, 0.9]) == [1.0, 1.0]
    assert adjust_p_values([]) == []


def test_effect_sizes_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1.
    assert standardize_difference([1, 2, 3]) == pytest.approx(2.0)
    assert standardize_difference([2.0]) is None
    assert standardize_difference([0.1 + 0.2, 0.3, 0.3]) is None
    # Cohen 1988, table 6.2.2: phi(0.50) = 1.571, phi(0.25) = 1.047; h = 0.524.
    assert standardize_rates(0.25, 0.5) == pytest.approx(0.524, abs=5e-4)


def test_sample_size_of_a_medium_effect():
    # Faul et al. 2007 (G*Power), paired t-test, d_z = 0.5, alpha 0.05 two-sided, power 0.8: 34 pairs.
    assert scenarios_needed(0.5, 1.0) == 34
    assert scenarios_needed(-1.0, 2.0) == 34
    assert smallest_difference(34, 2.0) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(ValueError, match="no sample size"):
        scenarios_needed(0.0, 1.0)


def test_sample_size_of_paired_rates():
    # 20 % change up, 5 % down: changed 0.25, difference 0.15.
    # (1.95996 x 0.5 + 0.84162 x sqrt(0.25 - 0.0225))^2 / 0.0225 = (0.97998 + 0.40142)^2 / 0.0225 = 84.8.
    assert scenarios_needed_for_rates(0.20, 0.05) == 85
    with pytest.raises(ValueError, match="no sample size"):
        scenarios_needed_for_rates(0.1, 0.1)
