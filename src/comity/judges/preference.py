"""Which of two answers is better: pairwise judges, asked in both orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from comity.access import Reply
from comity.judges.llm import NO_VERDICT, Ask, ask_responder
from comity.prompts import fill, hash_template, parse_preference
from comity.types import AgencyJudge, Answer, AnswerPair, Choice, Preference, PreferenceJudge, Responder, Verdict

Consistent = Literal["first", "second", "tie", "inconsistent", "unscored"]
SWAPPED: Mapping[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The words of a judge on one pair in both orders, both told of the pair as it was given, and what they amount to.

    `outcome` is a choice only when both orders agree; it is `inconsistent` when they differ and `unscored` when one has
    no verdict.
    """

    forward: Choice | None
    backward: Choice | None
    outcome: Consistent


def llm_preference_judge(respond: Responder, name: str) -> PreferenceJudge:
    """Return a pairwise judge; `choice` is None when the reply's first line is not A, B or TIE."""
    return prompted_preference_judge(partial(ask_responder, respond), name)


def prompted_preference_judge(ask: Ask, name: str) -> PreferenceJudge:
    """Return a pairwise judge; a choice that did not come is None and its text says why."""

    def judge(pairs: Sequence[AnswerPair]) -> list[Preference]:
        prompts = [
            fill("preference", dilemma=pair.dilemma, answer_a=pair.first, answer_b=pair.second) for pair in pairs
        ]
        return [_read(name, reply) for reply in ask("preference", prompts)]

    return judge


def prefer_by_score(judge: AgencyJudge, margin: float) -> PreferenceJudge:
    """Return a pairwise judge that compares absolute scores; a difference of at most `margin` is a tie.

    It reads each answer alone, so both orders always agree.
    """

    def prefer(pairs: Sequence[AnswerPair]) -> list[Preference]:
        verdicts = judge([Answer(pair.dilemma, text) for pair in pairs for text in (pair.first, pair.second)])
        return [_compare_scores(verdicts[2 * place], verdicts[2 * place + 1], margin) for place in range(len(pairs))]

    return prefer


def recall_scores(scores: Mapping[tuple[str, str], float | None], name: str) -> AgencyJudge:
    """Return an agency judge that repeats known scores, keyed by dilemma and answer; others are unscored."""

    def judge(answers: Sequence[Answer]) -> list[Verdict]:
        return [Verdict(name, "", scores.get((answer.dilemma, answer.answer))) for answer in answers]

    return judge


def compare_both_orders(judge: PreferenceJudge, pairs: Sequence[AnswerPair]) -> list[Comparison]:
    """Ask a pairwise judge about every pair in both orders; a win counts only if both orders agree (paper, section 4).

    Source of the habit: Zheng et al. 2023 (position bias of judges).
    """
    swapped = [AnswerPair(pair.dilemma, pair.second, pair.first) for pair in pairs]
    words = judge([*pairs, *swapped]) if pairs else []
    forward = [word.choice for word in words[: len(pairs)]]
    backward = [None if word.choice is None else SWAPPED[word.choice] for word in words[len(pairs) :]]
    return [Comparison(one, other, _join(one, other)) for one, other in zip(forward, backward, strict=True)]


def _read(name: str, reply: Reply) -> Preference:
    choice, reason = (None, "") if reply.text is None else parse_preference(reply.text)
    text = reason if choice is not None else reply.problem or NO_VERDICT
    return Preference(name, hash_template("preference"), choice, text)


def _join(forward: Choice | None, backward: Choice | None) -> Consistent:
    if forward is None or backward is None:
        return "unscored"
    return forward if forward == backward else "inconsistent"


def _compare_scores(first: Verdict, second: Verdict, margin: float) -> Preference:
    choice: Choice | None = None
    if first.score is not None and second.score is not None:
        difference = first.score - second.score
        choice = "tie" if abs(difference) <= margin else "first" if difference > 0 else "second"
    return Preference(first.judge, first.template_hash, choice)
