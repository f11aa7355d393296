"""Bradley-Terry strengths against a published example and symmetry."""

import numpy as np
import pytest

from comity.evaluation.ranking import Outcome, fit_strengths, rank_models


def test_published_example_of_four_teams():
    # The worked example of the article "Bradley-Terry model" in Wikipedia: rows win against columns, in the order
    # A, B, C, D; the iteration converges to 0.139, 0.226, 0.143, 0.492.
    wins = np.array([[0, 2, 0, 1], [3, 0, 5, 0], [0, 3, 0, 1], [4, 0, 3, 0]], dtype=float)
    assert fit_strengths(wins, prior=0.0) == pytest.approx([0.139, 0.226, 0.143, 0.492], abs=5e-4)


def test_published_example_of_the_american_league():
    # Agresti 2002, table 10.10: games of 1987, rows win against columns. The fitted strengths, Baltimore's being 0, are
    # those that R's package BradleyTerry2 prints for its data set `baseball`.
    teams = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
    wins = np.array([
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ], dtype=float)  # fmt: skip
    shares = fit_strengths(wins, prior=0.0)
    logs = dict(zip(teams, np.log(shares / shares[-1]), strict=True))
    assert logs == pytest.approx(
        {"Milwaukee": 1.5814, "Detroit": 1.4364, "Toronto": 1.2945, "New York": 1.2476, "Boston": 1.1077,
         "Cleveland": 0.6839, "Baltimore": 0.0},
        abs=5e-4,
    )  # fmt: skip


def test_two_models_have_their_share_of_wins():
    # 3 of 4 won: p / (p + q) = 3/4 without a prior.
    assert fit_strengths(np.array([[0, 3], [1, 0]], dtype=float), prior=0.0) == pytest.approx([0.75, 0.25])


def outcomes(pairs):
    return [Outcome(f"s{place}", first, second, won) for place, (first, second, won) in enumerate(pairs)]


def test_models_are_ranked_with_intervals():
    results = outcomes([("a", "b", 1.0)] * 9 + [("a", "b", 0.0)] * 3 + [("b", "c", 1.0)] * 8 + [("b", "c", 0.0)] * 4)
    ranked = rank_models(["c", "b", "a", "unplayed"], results, seed=0)
    assert [strength.model for strength in ranked] == ["a", "b", "c"]
    assert sum(strength.share for strength in ranked) == pytest.approx(1.0)
    for strength in ranked:
        assert strength.low < strength.share < strength.high
    assert rank_models(["c", "b", "a"], results, seed=0) == ranked


def test_ties_and_a_model_that_never_lost():
    even = rank_models(["a", "b"], outcomes([("a", "b", 0.5)] * 4), seed=0)
    assert [strength.share for strength in even] == pytest.approx([0.5, 0.5])
    best, worst = rank_models(["a", "b"], outcomes([("a", "b", 1.0)] * 4), seed=0)
    assert best.model == "a"
    assert 0.5 < best.share < 1.0
    assert worst.share > 0


def test_one_scenario_has_no_interval_and_one_model_no_rank():
    alone = rank_models(["a", "b"], [Outcome("s", "a", "b", 1.0)], seed=0)
    assert (alone[0].low, alone[0].high) == (None, None)
    assert rank_models(["a", "b"], [], seed=0) == []
