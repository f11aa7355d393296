"""Pairwise judges in both orders."""

import pytest

from comity.engines.scripted import scripted_responder
from comity.judges.preference import compare_both_orders, llm_preference_judge, prefer_by_score, recall_scores
from comity.prompts import hash_template
from comity.types import AnswerPair, Preference

PAIRS = [AnswerPair("d", "good", "bad"), AnswerPair("d", "bad", "good"), AnswerPair("d", "good", "fair"),
         AnswerPair("d", "good", "unknown")]  # fmt: skip
SCORES = {("d", "good"): 4.0, ("d", "fair"): 3.75, ("d", "bad"): 1.0}


def say(choose):
    return lambda pairs: [Preference("plain function", "", choose(pair)) for pair in pairs]


def test_scores_decide_beyond_the_margin():
    judge = prefer_by_score(recall_scores(SCORES, "known"), margin=0.25)
    # 4 - 1 = 3; 1 - 4 = -3; 4 - 3.75 = 0.25, not more than the margin; one answer has no score.
    assert [item.choice for item in judge(PAIRS)] == ["first", "second", "tie", None]
    assert [item.outcome for item in compare_both_orders(judge, PAIRS)] == ["first", "second", "tie", "unscored"]
    assert prefer_by_score(recall_scores(SCORES, "known"), margin=0.2)(PAIRS)[2].choice == "first"


def test_a_judge_that_always_likes_what_comes_first_is_inconsistent():
    found = compare_both_orders(say(lambda pair: "first"), PAIRS[:2])
    assert [(item.forward, item.backward, item.outcome) for item in found] == [("first", "second", "inconsistent")] * 2


def test_a_judge_that_reads_the_text_is_consistent_in_both_orders():
    found = compare_both_orders(say(lambda pair: "first" if pair.first == "good" else "second"), PAIRS[:2])
    assert [item.outcome for item in found] == ["first", "second"]


@pytest.mark.parametrize("silent", ["good", "bad"])
def test_silence_in_one_order_is_unscored(silent):
    judge = say(lambda pair: None if pair.first == silent else "first")
    assert [item.outcome for item in compare_both_orders(judge, PAIRS[:1])] == ["unscored"]


def test_a_tie_against_a_choice_is_inconsistent():
    judge = say(lambda pair: "tie" if pair.first == "good" else "second")
    assert [item.outcome for item in compare_both_orders(judge, PAIRS[:1])] == ["inconsistent"]
    assert compare_both_orders(judge, []) == []


def test_a_model_is_asked_in_both_orders_and_wins_ties_and_contradictions_are_told_apart():
    replies = ["A", "A", "tie", "A\nlonger", "perhaps",  # as given
               "B", "A", "TIE", "tie", "B"]  # the other way round  # fmt: skip
    asked = []

    def reply(request):
        asked.append(request)
        return replies[len(asked) - 1]

    judge = llm_preference_judge(scripted_responder(reply), "scripted")
    found = compare_both_orders(judge, [AnswerPair("d", f"one{n}", f"two{n}") for n in range(5)])
    assert [item.outcome for item in found] == ["first", "inconsistent", "tie", "inconsistent", "unscored"]
    assert [(item.forward, item.backward) for item in found][:2] == [("first", "first"), ("first", "second")]
    first, swapped = asked[0].messages[0]["content"], asked[5].messages[0]["content"]
    assert "<answer_a>one0</answer_a>\n<answer_b>two0</answer_b>" in first
    assert "<answer_a>two0</answer_a>\n<answer_b>one0</answer_b>" in swapped
    assert {request.target for request in asked} == {"preference"}


def test_a_choice_that_did_not_come_says_why():
    (word,) = llm_preference_judge(scripted_responder(["both"]), "scripted")([AnswerPair("d", "a", "b")])
    assert word == Preference("scripted", hash_template("preference"), None, "no verdict in the reply")
