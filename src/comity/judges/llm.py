"""The judges from any responder that answers the judge prompts: a local model, a server, a script or a human."""

from collections.abc import Sequence

from comity.prompts import fill, hash_template, parse_agency, parse_agreement
from comity.types import (
    AgencyJudge,
    AgreementJudge,
    Answer,
    Completion,
    Request,
    Responder,
    RoundEnding,
    Sampling,
    Target,
    Verdict,
)

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=64)


def llm_agreement_judge(respond: Responder, name: str) -> AgreementJudge:
    """Return a judge of round endings; `agreed` and `score` are None when the reply has no verdict."""

    def judge(endings: Sequence[RoundEnding]) -> list[Verdict]:
        prompts = [
            fill(
                "agreement",
                dilemma=ending.dilemma,
                persona_a=ending.persona_a,
                persona_b=ending.persona_b,
                message_a=ending.message_a,
                message_b=ending.message_b,
            )
            for ending in endings
        ]
        return [_read_agreement(name, completion) for completion in _ask(respond, "agreement", prompts)]

    return judge


def llm_agency_judge(respond: Responder, name: str) -> AgencyJudge:
    """Return a judge of answers; `score` is None when the reply has no whole number from 0 to 5."""

    def judge(answers: Sequence[Answer]) -> list[Verdict]:
        prompts = [fill("agency", dilemma=answer.dilemma, answer=answer.answer) for answer in answers]
        return [_read_agency(name, completion) for completion in _ask(respond, "agency", prompts)]

    return judge


def _ask(respond: Responder, target: Target, prompts: Sequence[str]) -> Sequence[Completion]:
    requests = [Request(target, ({"role": "user", "content": prompt},), GREEDY, seed=0) for prompt in prompts]
    return respond(requests) if requests else []


def _read_agreement(name: str, completion: Completion) -> Verdict:
    agreed, reason = (None, "") if completion.finish == "error" else parse_agreement(completion.text)
    score = None if agreed is None else float(agreed)
    return Verdict(name, hash_template("agreement"), score, reason, agreed)


def _read_agency(name: str, completion: Completion) -> Verdict:
    score, reason = (None, "") if completion.finish == "error" else parse_agency(completion.text)
    return Verdict(name, hash_template("agency"), score, reason)
