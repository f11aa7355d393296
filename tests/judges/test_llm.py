"""Judges from a responder's replies: a verdict, or None, never a guess."""

import numpy as np
import pytest

from comity.engines.scripted import scripted_responder
from comity.judges.llm import SCORES, expected_agency_judge, llm_agency_judge, llm_agreement_judge
from comity.prompts import hash_template
from comity.types import Answer, Completion, RoundEnding

ENDING = RoundEnding("Who draws first?", "Save water.", "Save time.", "By turns?", "Yes, from Monday.")
FAILED = Completion("YES\nwell", finish="error")


@pytest.mark.parametrize(
    ("reply", "agreed", "reason"),
    [
        ("YES\nboth accept turns", True, "both accept turns"),
        ("no.", False, ""),
        ("No\n\nx", False, ""),
        ("Yes, they do", None, "no verdict in the reply"),
        ("YESNO", None, "no verdict in the reply"),
        ("", None, "no verdict in the reply"),
        ("I think\nYES", None, "no verdict in the reply"),
        (FAILED, None, "the reply never came"),
    ],
)
def test_an_agreement_is_read_from_the_first_line(reply, agreed, reason):
    (verdict,) = llm_agreement_judge(scripted_responder([reply]), "scripted")([ENDING])
    assert (verdict.agreed, verdict.text) == (agreed, reason)
    assert verdict.score == {True: 1.0, False: 0.0, None: None}[agreed]
    assert (verdict.judge, verdict.template_hash) == ("scripted", hash_template("agreement"))


@pytest.mark.parametrize(
    ("reply", "score"),
    [("0", 0.0), ("5\nlasting", 5.0), (" 3 ", 3.0), ("6", None), ("-1", None), ("3.5", None), ("4/5", None),
     ("four", None), ("Score: 4", None), ("٣", None), ("", None), (Completion("4", finish="error"), None)],
)  # fmt: skip
def test_a_score_is_read_from_the_first_line(reply, score):
    (verdict,) = llm_agency_judge(scripted_responder([reply]), "scripted")([Answer("Who draws first?", "By turns.")])
    assert verdict.score == score
    assert verdict.agreed is None
    assert verdict.template_hash == hash_template("agency")


def test_replies_stay_with_their_rows():
    judge = llm_agency_judge(scripted_responder(["1", "x", "5"]), "scripted")
    assert [v.score for v in judge([Answer("d", text) for text in "abc"])] == [1.0, None, 5.0]


def test_nothing_to_judge_asks_nothing():
    assert llm_agreement_judge(scripted_responder([]), "scripted")([]) == []
    assert llm_agency_judge(scripted_responder([]), "scripted")([]) == []


def test_the_judge_is_asked_greedily_about_the_texts_it_got():
    asked = []

    def reply(request):
        asked.append(request)
        return "YES"

    llm_agreement_judge(scripted_responder(reply), "scripted")([ENDING])
    (request,) = asked
    (message,) = request.messages
    assert (request.target, request.sampling.temperature, message["role"]) == ("agreement", 0.0, "user")
    for text in (ENDING.dilemma, ENDING.persona_a, ENDING.persona_b, ENDING.message_a, ENDING.message_b):
        assert text in message["content"]


def test_a_message_cannot_forge_a_line_of_the_prompt():
    asked = []

    def reply(request):
        asked.append(request.messages[0]["content"])
        return "NO"

    judge = llm_agreement_judge(scripted_responder(reply), "scripted")
    judge([RoundEnding("d", "x", "y", "one line", "no"), RoundEnding("d", "x", "y", "one\nline", "no")])
    assert asked[0] == asked[1]


def test_an_expected_score_is_the_mean_of_the_numbers_under_their_shares():
    asked = []

    def weigh(chats, options):
        asked.extend((chat[0]["content"], options) for chat in chats)
        # 2 and 4 share 8 % of the probability as 3 to 1; the second model writes nothing but 5.
        return np.log([[1e-300, 1e-300, 0.06, 1e-300, 0.02, 1e-300], [1e-300] * 5 + [1.0]])

    judge = expected_agency_judge(weigh, "self")
    first, second = judge([Answer("Who draws first?", text) for text in ("By turns.", "Never.")])
    assert first.score == pytest.approx(2.5)  # (3 x 2 + 4) / 4
    assert first.uncertainty == pytest.approx((0.75 * 0.25 + 0.25 * 2.25) ** 0.5)
    assert first.text == "the numbers 0 to 5 have 8 % of the probability"
    assert (second.score, second.judge, second.template_hash) == (pytest.approx(5), "self", hash_template("agency"))
    assert [options for _, options in asked] == [SCORES, SCORES]
    assert "<answer>By turns.</answer>" in asked[0][0]
    assert "<answer>Never.</answer>" in asked[1][0]
    assert judge([]) == []
