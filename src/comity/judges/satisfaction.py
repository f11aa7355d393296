"""How far a joint answer gives each side what it said it wants, each side judged apart.

Only a model that answers a prompt can do this here. The embedded encoder cannot: a head needs labels, of which there
are none for satisfaction, and the likeness of hidden states between a goal and an answer says whether they share a
topic, not whether the goal is met.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from comity.access import Reply
from comity.judges.llm import NO_VERDICT, Ask, ask_responder
from comity.prompts import fill, hash_template, parse_satisfaction
from comity.types import Responder, SatisfactionJudge, Stake, Verdict


def llm_satisfaction_judge(respond: Responder, name: str) -> SatisfactionJudge:
    """Return a judge of stakes; `score` is None when the reply has no whole number from 0 to 5."""
    return prompted_satisfaction_judge(partial(ask_responder, respond), name)


def prompted_satisfaction_judge(ask: Ask, name: str) -> SatisfactionJudge:
    """Return a judge of stakes; a score that did not come is None and its text says why."""

    def judge(stakes: Sequence[Stake]) -> list[Verdict]:
        prompts = [
            fill("satisfaction", dilemma=stake.dilemma, objective=stake.objective, answer=stake.answer)
            for stake in stakes
        ]
        return [_read(name, reply) for reply in ask("satisfaction", prompts)]

    return judge


def judge_satisfaction(
    rows: Sequence[Mapping[str, Any]], judge: SatisfactionJudge | None
) -> list[list[float | None] | None]:
    """Return the satisfaction of both sides with each row's joint answer; None where there is nothing to judge.

    Rows are dialogues as `runs.negotiation_row` writes them. Without a judge, without two sides or without an answer a
    row has none; a side that the judge left unscored is None in its pair.
    """
    judged: list[list[float | None] | None] = [None] * len(rows)
    if judge is None:
        return judged
    asked = [i for i, row in enumerate(rows) if len(row["personas"]) == 2 and row["completion"] is not None]
    stakes = [Stake(rows[i]["dilemma"], goal, rows[i]["completion"]) for i in asked for goal in rows[i]["personas"]]
    scores = [verdict.score for verdict in judge(stakes)]
    for place, i in enumerate(asked):
        judged[i] = scores[2 * place : 2 * place + 2]
    return judged


def _read(name: str, reply: Reply) -> Verdict:
    score, reason = (None, "") if reply.text is None else parse_satisfaction(reply.text)
    text = reason if score is not None else reply.problem or NO_VERDICT
    return Verdict(name, hash_template("satisfaction"), score, text)
