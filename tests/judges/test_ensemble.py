"""Several judges as one, worked by hand."""

import math

import pytest

from comity.judges.ensemble import combine_agency_judges, combine_agreement_judges
from comity.types import Answer, RoundEnding, Verdict

ANSWER = Answer("d", "a")
ENDING = RoundEnding("d", "x", "y", "m", "n")


def fixed(name, score=None, agreed=None, text="", template="t"):
    return lambda items: [Verdict(name, template, score, text, agreed) for _ in items]


def scored(*scores, rule="median"):
    judges = [fixed(f"j{place}", score) for place, score in enumerate(scores)]
    (verdict,) = combine_agency_judges(judges, rule)([ANSWER])
    return verdict


@pytest.mark.parametrize(("rule", "score"), [("mean", 3.0), ("median", 4.0), ("min", 0.0)])
def test_scores_become_one_by_the_rule(rule, score):
    verdict = scored(0.0, 4.0, 5.0, rule=rule)
    assert verdict.score == score
    # Around the mean 3: 9 + 1 + 4 = 14; 14 / 3 is the variance.
    assert verdict.uncertainty == pytest.approx(math.sqrt(14 / 3))
    assert verdict.judge == f"{rule}(j0, j1, j2)"
    assert verdict.agreed is None


def test_the_others_decide_while_they_are_more_than_half():
    assert scored(2.0, None, 4.0, rule="mean").score == 3.0
    assert scored(2.0, None).score is None  # one of two is not more than half
    assert scored(None, None, 4.0).score is None


@pytest.mark.parametrize(
    ("votes", "rule", "agreed", "score"),
    [
        ((True, True, False), "median", True, 1.0),
        ((True, False, False), "mean", False, 1 / 3),
        ((True, False), "mean", False, 0.5),  # half is not more than half
        ((True, True, False), "min", False, 0.0),
        ((True, True, True), "min", True, 1.0),
        ((True, None, True), "median", True, 1.0),
        ((True, None), "median", None, None),
    ],
)
def test_agreement_is_a_vote(votes, rule, agreed, score):
    # The probabilities say otherwise: each judge knows its own threshold.
    judges = [fixed("j", 0.4 if vote else 0.3, vote) for vote in votes]
    (verdict,) = combine_agreement_judges(judges, rule)([ENDING])
    assert (verdict.agreed, verdict.score) == (agreed, pytest.approx(score))


def test_the_text_lists_what_each_judge_said():
    judges = [fixed("a", 4.0, text="fair"), fixed("b", None, text="timeout", template="u"), fixed("c", 2.5)]
    (verdict,) = combine_agency_judges(judges, "mean")([ANSWER])
    assert verdict.text == "a 4 (fair); b unscored (timeout); c 2.5"
    assert verdict.template_hash == "t+u"


def test_rows_stay_apart():
    by_length = lambda items: [Verdict("length", "t", float(len(item.answer))) for item in items]  # noqa: E731
    answers = [Answer("d", "a"), Answer("d", "abc")]
    combined = combine_agency_judges([by_length, fixed("one", 1.0)], "mean")
    assert [verdict.score for verdict in combined(answers)] == [1.0, 2.0]
    assert combined([]) == []
