"""The judges from whoever answers the judge prompts: a local model, a script, a human, a model behind an address."""

from collections.abc import Callable, Sequence
from functools import partial

from comity.access import ModelAccess, Question, Reply
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
NO_VERDICT = "no verdict in the reply"

Ask = Callable[[Target, Sequence[str]], list[Reply]]
"""Answers filled templates of one kind, in order."""


def llm_agreement_judge(respond: Responder, name: str) -> AgreementJudge:
    """Return a judge of round endings; `agreed` and `score` are None when the reply has no verdict."""
    return partial(_judge_agreement, partial(ask_responder, respond), name)


def llm_agency_judge(respond: Responder, name: str) -> AgencyJudge:
    """Return a judge of answers; `score` is None when the reply has no whole number from 0 to 5."""
    return partial(_judge_agency, partial(ask_responder, respond), name)


def external_agreement_judge(access: ModelAccess, reply_tokens: int) -> AgreementJudge:
    """Return a judge of round endings behind an address; what brought no verdict is unscored and says why."""
    return partial(_judge_agreement, partial(ask_access, access, reply_tokens), access.model)


def external_agency_judge(access: ModelAccess, reply_tokens: int) -> AgencyJudge:
    """Return a judge of answers behind an address; what brought no verdict is unscored and says why."""
    return partial(_judge_agency, partial(ask_access, access, reply_tokens), access.model)


def ask_responder(respond: Responder, target: Target, prompts: Sequence[str]) -> list[Reply]:
    """Ask anything that answers requests, greedily."""
    requests = [Request(target, ({"role": "user", "content": prompt},), GREEDY, seed=0) for prompt in prompts]
    return [_to_reply(completion) for completion in (respond(requests) if requests else [])]


def ask_access(access: ModelAccess, reply_tokens: int, target: Target, prompts: Sequence[str]) -> list[Reply]:
    """Ask a model behind an address, greedily; the prompt's template is the one named `target`."""
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=reply_tokens)
    template_hash = hash_template(target)
    return access.ask(
        [
            Question(({"role": "user", "content": prompt},), sampling, template_hash, f"judge/{target}")
            for prompt in prompts
        ]
    )


def _to_reply(completion: Completion) -> Reply:
    failed = completion.finish == "error"
    return Reply(None, "the reply never came") if failed else Reply(completion.text)


def _judge_agreement(ask: Ask, name: str, endings: Sequence[RoundEnding]) -> list[Verdict]:
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
    return [_read_agreement(name, reply) for reply in ask("agreement", prompts)]


def _judge_agency(ask: Ask, name: str, answers: Sequence[Answer]) -> list[Verdict]:
    prompts = [fill("agency", dilemma=answer.dilemma, answer=answer.answer) for answer in answers]
    return [_read_agency(name, reply) for reply in ask("agency", prompts)]


def _read_agreement(name: str, reply: Reply) -> Verdict:
    agreed, reason = (None, "") if reply.text is None else parse_agreement(reply.text)
    if agreed is None:
        return Verdict(name, hash_template("agreement"), None, reply.problem or NO_VERDICT)
    return Verdict(name, hash_template("agreement"), float(agreed), reason, agreed)


def _read_agency(name: str, reply: Reply) -> Verdict:
    score, reason = (None, "") if reply.text is None else parse_agency(reply.text)
    text = reason if score is not None else reply.problem or NO_VERDICT
    return Verdict(name, hash_template("agency"), score, text)
