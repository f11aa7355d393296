"""Figures of an audit against published examples and hand-worked numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.judges.audit_statistics import (
    Figure,
    Resampling,
    alpha,
    estimate,
    kappa,
    mean,
    measure_pair,
    partial_spearman,
    pearson,
    spearman,
    to_levels,
)

NAN = math.nan
# Krippendorff 2011, section C: four observers, twelve units, five categories.
FOUR_OBSERVERS = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
])  # fmt: skip
# The same paper, section A: two observers, ten units, two categories.
TWO_OBSERVERS = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], float)


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_textbook(level, value):
    assert alpha(FOUR_OBSERVERS, level) == pytest.approx(value, abs=5e-4)


def test_alpha_of_two_observers_by_hand():
    # 4 of 10 units disagree: o_01 = 4 of 20 values; 14 zeros and 6 ones: 1 - 19 * 4 / (14 * 6) = 8 / 84 = 0.095.
    assert alpha(TWO_OBSERVERS, "nominal") == pytest.approx(8 / 84)


def test_spearman_is_that_of_the_textbook():
    # Intelligence and hours of television: 1 - 6 * 194 / (10 * 99) = -29 / 165.
    x = np.array([106, 100, 86, 101, 99, 103, 97, 113, 112, 110], float)
    y = np.array([7, 27, 2, 50, 28, 29, 20, 12, 6, 17], float)
    assert spearman(x, y) == pytest.approx(-29 / 165)


def test_quadratic_kappa_by_hand():
    x, y = np.array([0, 0, 5, 5], float), np.array([0, 1, 5, 4], float)
    # Observed squares: 0, 1, 0, 1, mean 1/2. Expected over all 16 pairs: from 0 to 0, 1, 5, 4: 0 + 1 + 25 + 16 = 42;
    # from 5: 25 + 16 + 0 + 1 = 42; mean (2 * 42 + 2 * 42) / 16 = 10.5. 1 - 0.5 / 10.5 = 20 / 21.
    assert kappa(x, y, range(6)) == pytest.approx(20 / 21)


def test_pearson_by_hand():
    # Deviations -1, 0, 1 and -2, 1, 1: 3 / sqrt(2 * 6).
    assert pearson(np.array([1.0, 2, 3]), np.array([0.0, 3, 3])) == pytest.approx(3 / math.sqrt(12))


def test_partial_spearman_by_hand():
    # Ranks x 1 2 3 4, y 2 1 4 3, z 1 3 2 4: r_xy = 1 - 6 * 4 / 60 = 0.6; r_xz = 1 - 6 * 2 / 60 = 0.8;
    # r_yz: differences 1, -2, 2, -1: 1 - 6 * 10 / 60 = 0. So (0.6 - 0) / sqrt((1 - 0.64) * 1) = 1.
    x, y, z = np.array([10.0, 20, 30, 40]), np.array([2.0, 1, 4, 3]), np.array([1.0, 3, 2, 4])
    assert partial_spearman(x, y, z) == pytest.approx(1.0)
    assert partial_spearman(x, y, x) is None  # nothing of x is left


def test_agreement_figures_by_hand():
    x, y = np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 0, 0])
    # Exact 3/4. Deviations 0.5, 0.5, -0.5, -0.5 and 0.75, -0.25, -0.25, -0.25: 0.5 / sqrt(1 * 0.75).
    # Kappa: expected agreement 1/2 * 1/4 + 1/2 * 3/4 = 1/2, so (3/4 - 1/2) / (1/2) = 1/2.
    # Alpha: 3 ones and 5 zeros, one disagreement: 1 - 7 * 1 / (3 * 5) = 8/15.
    figures = measure_pair("agreement", x, y)
    assert figures == pytest.approx({"exact": 0.75, "pearson": 0.5 / math.sqrt(0.75), "kappa": 0.5, "alpha": 8 / 15})


def test_agency_figures_use_whole_scores_where_they_must():
    figures = measure_pair("agency", np.array([0.4, 2.5, 4.4]), np.array([0.0, 2.0, 2.0]))
    # Whole: 0, 3, 4 against 0, 2, 2.
    assert figures["exact"] == pytest.approx(1 / 3)
    assert figures["within_one"] == pytest.approx(2 / 3)
    # Ranks 1, 2, 3 and 1, 2.5, 2.5: 1.5 / sqrt(2 * 1.5).
    assert figures["spearman"] == pytest.approx(1.5 / math.sqrt(3))


def test_levels_round_halves_up_and_stay_on_the_scale():
    assert to_levels(np.array([-0.2, 0.5, 1.49, 2.5, 5.0])).tolist() == [0, 1, 1, 3, 5]


def test_figures_without_spread_or_rows_are_unknown_and_not_zero():
    same, empty = np.ones(3), np.zeros(0)
    for figures in (measure_pair("agency", same, same), measure_pair("agency", empty, empty)):
        assert {figures[name] for name in ("pearson", "spearman", "kappa", "alpha")} == {None}
    assert measure_pair("agency", same, same)["exact"] == 1.0
    assert measure_pair("agency", empty, empty)["exact"] is None


def test_unscored_rows_are_left_out_and_counted():
    figure = estimate(lambda x: {"mean": mean(x)}, [[1.0, None, 3.0, NAN]], ["a", "b", "c", "d"], Resampling())["mean"]
    assert (figure.value, figure.n, figure.n_unscored) == (2.0, 2, 2)


def test_one_dilemma_gives_no_interval():
    figures = estimate(lambda x: {"mean": mean(x)}, [[1.0, 3.0]], ["a", "a"], Resampling())
    assert figures == {"mean": Figure(2.0, None, None, 2, 0)}


def test_whole_dilemmas_are_drawn():
    # Two dilemmas of constant 0 and 4: a resample is 0, 2 or 4, with 1/4, 1/2, 1/4; so the interval is [0, 4] however
    # many rows each has, whereas drawing rows would give nearly 2.
    values, clusters = [0.0] * 50 + [4.0] * 50, ["a"] * 50 + ["b"] * 50
    figure = estimate(lambda x: {"mean": mean(x)}, [values], clusters, Resampling(resamples=400))["mean"]
    assert (figure.value, figure.low, figure.high) == (2.0, 0.0, 4.0)


def test_an_interval_needs_most_resamples():
    # With two dilemmas half of the resamples hold one of them alone, where the rows have no spread.
    figures = estimate(
        lambda x, y: {"pearson": pearson(x, y)}, [[0.0, 1.0], [0.0, 1.0]], ["a", "b"], Resampling(resamples=50)
    )
    assert figures["pearson"] == Figure(pytest.approx(1.0), None, None, 2, 0)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        estimate(lambda x: {"mean": mean(x)}, [[1.0]], ["a", "b"], Resampling())


scores = st.floats(0, 5).map(lambda value: round(value, 6))  # no judge tells scores 1e-200 apart
ratings = st.lists(st.tuples(scores, scores), min_size=2, max_size=12)


@given(ratings)
def test_figures_do_not_depend_on_who_is_named_first(pairs):
    x, y = np.array(pairs).T
    there, back = measure_pair("agency", x, y), measure_pair("agency", y, x)
    assert {k: v for k, v in there.items() if v is not None} == pytest.approx(
        {k: v for k, v in back.items() if v is not None}, abs=1e-9
    )


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12).filter(lambda values: len(set(values)) > 1))
def test_a_rater_agrees_with_itself(values):
    x = np.array(values, float)
    assert measure_pair("agency", x, x) == pytest.approx(dict.fromkeys(measure_pair("agency", x, x), 1.0))


@given(ratings, st.integers(0, 3))
def test_an_interval_is_the_same_for_the_same_seed_and_holds_shares_inside_0_and_1(pairs, seed):
    x, y = np.array(pairs).T
    clusters = [str(i // 2) for i in range(len(pairs))]
    first, second = (
        estimate(
            lambda x, y: {"exact": measure_pair("agency", x, y)["exact"]}, [list(x), list(y)], clusters,
            Resampling(seed, 20),
        )
        for _ in range(2)
    )  # fmt: skip
    assert first == second
    figure = first["exact"]
    assert figure.low is None or 0 <= figure.low <= figure.high <= 1
