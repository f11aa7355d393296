"""Paired differences and their intervals, worked by hand."""

import pytest

from comity.errors import DataError
from comity.evaluation.statistics import cluster_means, compare, estimate_mean, paired_bootstrap
from comity.types import Estimate


def make_row(scenario="s", sample=0, ending="agreed", rounds=2, reward=3.0, **changes):
    row = {"scenario": scenario, "sample": sample, "ending": ending, "rounds": rounds, "reward": reward}
    return {**row, "score": 3.0, "heldout_agreed": True, "heldout_score": 2.0, **changes}


def test_difference_of_three_clusters():
    # Differences: a: 1, 2 (sum 3 of 2 pairs); b: 0; c: -1. Mean (1 + 2 + 0 - 1) / 4 = 0.5.
    # A resample that holds only c has -1 / 1 = -1, only a has 3 / 2 = 1.5; each comes up (1/3)^3 = 3.7 % of the time,
    # more than the 2.5 % in each tail, so both are the ends of the interval exactly.
    result = paired_bootstrap([0, 0, 1, 2], [1, 2, 1, 1], ["a", "a", "b", "c"], seed=0)
    assert result.before == 0.75
    assert result.after == 1.25
    assert result.difference == 0.5
    assert (result.low, result.high) == (-1.0, 1.5)
    assert (result.n, result.n_unscored) == (4, 0)


def test_the_treated_mice():
    # Efron and Tibshirani 1993, table 2.1: survival of seven treated mice in days, mean 86.86; the ideal bootstrap's
    # standard error is 23.36 (table 2.2), and 95 % of a normal distribution lie within 2 x 1.96 of those.
    days = [94, 197, 16, 38, 99, 141, 23]
    result = estimate_mean(days, [f"mouse {n}" for n in range(7)], seed=0)
    assert result.mean == pytest.approx(86.86, abs=5e-3)
    assert (result.high - result.low) / (2 * 1.96) == pytest.approx(23.36, rel=0.05)


def test_constant_difference_has_an_interval_without_width():
    result = paired_bootstrap([0, 1, 2, 3], [1, 2, 3, 4], ["a", "a", "b", "c"], seed=3)
    assert (result.difference, result.low, result.high) == (1.0, 1.0, 1.0)


def test_more_samples_of_the_same_scenarios_do_not_narrow_the_interval():
    before, after, clusters = [0, 0, 1, 2, 1], [1, 2, 1, 1, 4], ["a", "b", "c", "d", "e"]
    once = paired_bootstrap(before, after, clusters, seed=5)
    thrice = paired_bootstrap(before * 3, after * 3, clusters * 3, seed=5)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert once.low < once.high
    assert thrice.n == 15


def test_order_of_pairs_does_not_matter():
    before, after, clusters = [0, 0, 1, 2, 1], [1, 2, 1, 1, 4], ["a", "b", "c", "d", "e"]
    backwards = paired_bootstrap(before[::-1], after[::-1], clusters[::-1], 5)
    assert paired_bootstrap(before, after, clusters, 5) == backwards


def test_unscored_pairs_are_left_out_and_counted():
    # Left are (1, 3) and (2, 2): before 1.5, after 2.5.
    result = paired_bootstrap([1, None, 2, 5], [3, 4, 2, None], ["a", "a", "b", "b"], seed=0)
    assert (result.before, result.after, result.difference) == (1.5, 2.5, 1.0)
    assert (result.n, result.n_unscored) == (2, 2)


def test_nothing_scored_and_one_scenario_have_no_interval():
    nothing = paired_bootstrap([None], [1.0], ["a"], seed=0)
    assert (nothing.difference, nothing.low, nothing.n, nothing.n_unscored) == (None, None, 0, 1)
    alone = paired_bootstrap([1.0, 2.0], [2.0, 4.0], ["a", "a"], seed=0)
    assert (alone.difference, alone.low, alone.high) == (1.5, None, None)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="shorter"):
        paired_bootstrap([1.0, 2.0], [1.0], ["a", "b"], seed=0)


def test_compare_pairs_by_scenario_and_sample():
    before = [
        make_row("a", 0, "no_agreement", 7, 0.0, heldout_agreed=False),
        make_row("a", 1, "agreed", 3, 2.0),
        make_row("b", 0, "agreed", 2, 4.0),
    ]
    after = [
        make_row("b", 0, "agreed", 1, 5.0),
        make_row("a", 1, "agreed", 2, None, score=None),
        make_row("a", 0, "agreed", 4, 3.0),
    ]
    results = compare(before, after, seed=0)
    # Agreement 2/3 -> 3/3. Rounds (7 + 3 + 2) / 3 = 4 -> (1 + 2 + 4) / 3 = 7/3: no agreement counts its 7.
    assert results["agreement_rate"]["difference"] == pytest.approx(1 / 3)
    assert results["rounds_mean"]["before"] == 4.0
    assert results["rounds_mean"]["after"] == pytest.approx(7 / 3)
    # Reward without the unscored pair (a, 1): (0 + 4) / 2 = 2 -> (3 + 5) / 2 = 4.
    reward = results["reward_mean"]
    assert (reward["before"], reward["after"], reward["n"], reward["n_unscored"]) == (2.0, 4.0, 2, 1)
    assert results["heldout_agreement_rate"]["before"] == pytest.approx(2 / 3)
    assert results["score_mean"]["n_unscored"] == 1


def test_unknown_word_of_the_judge_is_unscored_and_not_zero():
    before = [make_row("a", ending="no_agreement", reward=None), make_row("b", ending="no_agreement", reward=0.0)]
    after = [make_row("a"), make_row("b")]
    rate = compare(before, after, seed=0)["agreement_rate"]
    assert (rate["before"], rate["after"], rate["n"], rate["n_unscored"]) == (0.0, 1.0, 1, 1)


def test_failed_and_missing_dialogues_are_unscored():
    before = [make_row("a", ending="failed", reward=None), make_row("b"), make_row("c")]
    after = [make_row("a"), make_row("b")]
    rounds = compare(before, after, seed=0)["rounds_mean"]
    assert (rounds["n"], rounds["n_unscored"]) == (1, 2)


def test_a_dialogue_that_stands_twice_is_refused():
    with pytest.raises(DataError, match="'a', sample 0 stands twice"):
        compare([make_row("a"), make_row("a")], [make_row("a")], seed=0)


def test_mean_of_clusters():
    # a: 1, 3 (sum 4 of 2), b: 0. Mean 4 / 3. A resample of a alone has 2, of b alone 0; each comes up 1/4 of the time.
    result = estimate_mean([1, 3, 0, None], ["a", "a", "b", "b"], seed=0)
    assert result.mean == pytest.approx(4 / 3)
    assert (result.low, result.high, result.n, result.n_unscored) == (0.0, 2.0, 3, 1)
    assert estimate_mean([None], ["a"], seed=0) == Estimate(None, None, None, 0, 1)


def test_means_of_each_cluster():
    assert cluster_means([1, 3, None, None, 5], ["b", "b", "b", "c", "a"]) == {"a": 5.0, "b": 2.0}
