"""The figures of a head, worked out by hand."""

import numpy as np
import pytest

from comity.judges.metrics import best_threshold, f1_at, measure


def test_agency_figures_by_hand():
    score, target = np.array([0.4, 1.5, 2.0, 5.0]), np.array([0.0, 1.0, 3.0, 5.0])
    figures = measure("agency", score, target)
    assert figures["spearman"] == pytest.approx(1.0)
    assert figures["mae"] == pytest.approx((0.4 + 0.5 + 1 + 0) / 4)
    # Rounded: 0, 2, 2, 5 against 0, 1, 3, 5. Squared differences 0 + 1 + 1 + 0 = 2; over all 16 pairs of one target
    # with one score: target 0: 0+4+4+25, 1: 1+1+1+16, 3: 9+1+1+4, 5: 25+9+9+0: 33 + 19 + 15 + 43 = 110.
    assert figures["kappa"] == pytest.approx(1 - (2 / 4) / (110 / 16))


def test_agency_figures_of_one_value_are_0():
    assert measure("agency", np.array([2.0, 2.0]), np.array([1.0, 3.0])) == {"spearman": 0.0, "kappa": 0.0, "mae": 1.0}
    assert measure("agency", np.array([1.0, 2.0]), np.array([2.0, 2.0]))["spearman"] == 0.0


def test_agreement_figures_by_hand():
    score, target = np.array([0.9, 0.6, 0.5, 0.2]), np.array([1.0, 0.0, 1.0, 0.0])
    # From 0.5 on: YES YES YES NO: 2 hits, 1 false alarm. AUC: pairs (1, 0) in order: 0.9 beats both, 0.5 beats one.
    assert measure("agreement", score, target, 0.5) == pytest.approx({"f1": 4 / 5, "accuracy": 3 / 4, "auc": 3 / 4})
    assert measure("agreement", score, target, 0.51)["f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert measure("agreement", score, np.ones(4), 0.5)["auc"] == 0.0


def test_f1_without_any_yes_is_0():
    assert f1_at(np.array([0.1, 0.2]), np.zeros(2), 0.5) == 0.0


def test_the_best_threshold_is_the_middle_of_the_good_ones():
    # Every threshold above 0.305 and up to 0.7 is right: 0.31, 0.32 ... 0.70, whose median is 0.505.
    assert best_threshold(np.array([0.3, 0.305, 0.705, 0.9]), np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(0.505)
