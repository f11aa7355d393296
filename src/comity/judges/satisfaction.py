"""How far a joint answer gives each side what it said it wants, each side judged apart.

Only a model that answers a prompt can do this here. The embedded encoder cannot: a head needs labels, of which there
are none for satisfaction, and the likeness of hidden states between a goal and an answer says whether they share a
topic, not whether the goal is met.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from comity.prompts import fill, hash_template, parse_satisfaction
from comity.types import Completion, Request, Responder, Sampling, SatisfactionJudge, Stake, Verdict

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=64)


def llm_satisfaction_judge(respond: Responder, name: str) -> SatisfactionJudge:
    """Return a judge of stakes; `score` is None when the reply has no whole number from 0 to 5."""

    def judge(stakes: Sequence[Stake]) -> list[Verdict]:
        prompts = [
            fill("satisfaction", dilemma=stake.dilemma, objective=stake.objective, answer=stake.answer)
            for stake in stakes
        ]
        requests = [
            Request("satisfaction", ({"role": "user", "content": prompt},), GREEDY, seed=0) for prompt in prompts
        ]
        return [_read(name, completion) for completion in (respond(requests) if requests else [])]

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


def _read(name: str, completion: Completion) -> Verdict:
    score, reason = (None, "") if completion.finish == "error" else parse_satisfaction(completion.text)
    return Verdict(name, hash_template("satisfaction"), score, reason)
