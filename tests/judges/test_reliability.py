"""Reliability, coverage and doubt, worked by hand on a head of one feature that says what the feature says."""

import dataclasses

import numpy as np
import pytest

from comity.errors import ModelError
from comity.judges.head import RewardHead
from comity.judges.reliability import find_doubt, is_doubtful, measure_asking, measure_reliability
from comity.report.head_tables import tabulate_head
from comity.types import Verdict


def make_head(kind="agency", **changes):
    """Return a head whose raw value is its first feature and whose raw deviation is 0.5 * sqrt(1 + second ** 2)."""
    head = RewardHead(
        kind=kind,
        name="mine",
        model="tiny",
        layers=(1,),
        pooling="answer:mean",
        weights=np.array([1, 0], np.float32),
        bias=0.0,
        feature_mean=np.zeros(2, np.float32),
        feature_std=np.ones(2, np.float32),
        directions=np.array([[1, 0]], np.float16),
        direction_variances=np.zeros(1, np.float32),  # the first feature is known for certain
        prior_variance=1.0,
        residual_std=0.5,
        mean_variance=1.0,
    )
    return dataclasses.replace(head, **changes)


def features(*rows):
    return np.array(rows, np.float32)


def test_agency_bins_and_coverage_by_hand():
    # Deviations are 0.5 everywhere. Errors: 0.4, 0.6, 1.0 and 0: within 0.5 are the first and the last, within
    # 0.98 the second too.
    table = measure_reliability(
        make_head(), features([0.4, 0], [0.6, 0], [5, 0], [2.5, 0]), np.array([0.0, 0.0, 4.0, 2.5])
    )
    assert table == [
        {"low": 0.0, "high": 1.0, "n": 2, "predicted": pytest.approx(0.5), "true": 0.0, "within_68": 0.5,
         "within_95": 1.0},
        {"low": 2.0, "high": 3.0, "n": 1, "predicted": 2.5, "true": 2.5, "within_68": 1.0, "within_95": 1.0},
        {"low": 4.0, "high": 5.0, "n": 1, "predicted": 5.0, "true": 4.0, "within_68": 0.0, "within_95": 0.0},
        {"low": 0.0, "high": None, "n": 4, "predicted": pytest.approx(2.125), "true": 1.625, "within_68": 0.5,
         "within_95": 0.75},
    ]  # fmt: skip


def test_agreement_coverage_is_counted_before_the_sigmoid():
    # Probabilities: log-odds are 4 * (raw - 0.5), so raw 0.9 is e^1.6 / (1 + e^1.6) = 0.832, raw 0.3 is 0.310.
    head = make_head("agreement", slope=4.0, offset=-2.0)
    *bins, everything = measure_reliability(head, features([0.9, 0], [0.3, 0], [0.3, 0]), np.array([1.0, 0.0, 1.0]))
    assert [(row["low"], row["n"]) for row in bins] == [(0.2, 2), (0.8, 1)]
    assert bins[0]["predicted"] == pytest.approx(0.310, abs=5e-4)
    assert bins[0]["true"] == 0.5
    # |1 - 0.9| and |0 - 0.3| are within 0.5; |1 - 0.3| = 0.7 is within 0.98.
    assert (everything["within_68"], everything["within_95"]) == (pytest.approx(2 / 3), 1.0)


def test_agency_doubt_is_the_uncertainty():
    # Deviations 0.5 * sqrt(1 + x^2) of x = 0, 1, 2, 3 and 4 rise; errors are 0, 0.5, 1, 1.5 and 2.
    rows = features(*([2.5, x] for x in range(5)))
    asking = measure_asking(make_head(), rows, np.array([2.5, 2.0, 3.5, 1.0, 4.5]))
    table = {row["share"]: row for row in asking["table"]}
    # At 20 % of 5 rows the quantile lies between the two highest, at 4 * 0.8 = 3.2: the last row is passed on.
    assert table[0.2]["n_kept"] == 4
    assert table[0.2]["from_doubt"] == pytest.approx(0.5 * (0.8 * 10**0.5 + 0.2 * 17**0.5), abs=1e-6)
    assert table[0.2]["kept_error"] == pytest.approx((0 + 0.5 + 1 + 1.5) / 4)
    assert table[0.2]["error"] == pytest.approx(3.0 / 5)
    assert (table[0.0]["n_kept"], table[0.0]["error"]) == (5, pytest.approx(1.0))
    assert table[0.5]["n_kept"] == 3  # at 4 * 0.5 = 2: the third row itself is not above it


def test_agreement_doubt_is_the_nearness_to_the_threshold():
    # Raw 0.5 + d has log-odds 4 d. With the threshold at 0.5 the nearest is the third.
    head = make_head("agreement", slope=4.0, offset=-2.0)
    rows = features([1.0, 0], [0.0, 0], [0.55, 0], [0.8, 0], [0.3, 0])
    asking = measure_asking(head, rows, np.array([1.0, 0.0, 0.0, 1.0, 1.0]))
    table = {row["share"]: row for row in asking["table"]}
    # Said YES NO YES YES NO: the third and the fifth are wrong.
    assert table[0.0]["error"] == pytest.approx(2 / 5)
    assert (table[0.2]["n_kept"], table[0.2]["kept_error"]) == (4, pytest.approx(1 / 4))
    # In order of nearness: 0.55, 0.3, 0.8, then 1.0 and 0.0. At 4 * 0.5 = 2 the third nearest is not above itself.
    assert (table[0.5]["n_kept"], table[0.5]["kept_error"], table[0.5]["error"]) == (3, 0.0, 0.0)


def test_a_share_gives_the_doubt_to_begin_at():
    assert [find_doubt([0.0, 1.0, 4.0], share) for share in (0.0, 0.25, 0.5, 1.0)] == [4.0, 2.5, 1.0, 0.0]


def test_a_verdict_is_doubtful_above_that():
    agency = make_head(metadata={"asking": {"doubts": [0.0, 1.0, 2.0]}})
    assert [is_doubtful(agency, Verdict("j", "t", 3.0, uncertainty=u), 0.5) for u in (0.9, 1.0, 1.1)] == [
        False, False, True,
    ]  # fmt: skip
    assert not is_doubtful(agency, Verdict("j", "t", 0.0, "copies the dilemma", uncertainty=9.0), 0.5)  # by rule
    agreement = make_head("agreement", threshold=0.4, metadata={"asking": {"doubts": [0.5, 0.75, 1.0]}})
    # Half of the rows lie less than 0.25 from the threshold.
    words = [is_doubtful(agreement, Verdict("j", "t", p, uncertainty=0.1), 0.5) for p in (0.14, 0.16, 0.64, 0.66)]
    assert words == [False, True, True, False]


def test_a_head_without_heldout_rows_passes_nothing_on():
    with pytest.raises(ModelError, match="does not know when to ask another judge"):
        is_doubtful(make_head(), Verdict("j", "t", 3.0, uncertainty=0.1), 0.2)
    assert tabulate_head("agency", "mine", {}) == []


def test_the_tables_say_it_in_words():
    head = make_head()
    rows, target = features([0.4, 0], [5, 1]), np.array([0.0, 4.0])
    metadata = {
        "reliability": measure_reliability(head, rows, target), "asking": measure_asking(head, rows, target),
    }  # fmt: skip
    bins, asking = tabulate_head("agency", "mine", metadata)
    assert bins.rows[0] == ("0 to 1", "1", "0.40", "0.00", "100.0 %", "100.0 %")
    assert bins.rows[-1][0] == "all"
    assert asking.rows[0] == ("0.0 %", "never", "2", "0.70", "0.70")
    # Halfway between 0.5 and 0.5 * sqrt(2) = 0.707: 0.604.
    assert asking.rows[-1] == ("50.0 %", "above 0.60", "1", "0.40", "0.20")
