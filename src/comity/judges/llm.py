"""The judges from whoever answers the judge prompts: a local model, a script, a human, a model behind an address."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from comity.access import ModelAccess, Question, Reply
from comity.prompts import fill, hash_template, parse_agency, parse_agreement
from comity.types import (
    AgencyJudge,
    AgreementJudge,
    Answer,
    Completion,
    Message,
    Request,
    Responder,
    RoundEnding,
    Sampling,
    Target,
    Verdict,
)

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=64)
NO_VERDICT = "no verdict in the reply"

SCORES = ("0", "1", "2", "3", "4", "5")

Ask = Callable[[Target, Sequence[str]], list[Reply]]
"""Answers filled templates of one kind, in order."""
Weigh = Callable[[Sequence[Sequence[Message]], Sequence[str]], NDArray[np.float64]]
"""Returns the log-probabilities (chats, options) of each option as the first token of the reply to each chat."""


def llm_agreement_judge(respond: Responder, name: str) -> AgreementJudge:
    """Return a judge of round endings; `agreed` and `score` are None when the reply has no verdict."""
    return prompted_agreement_judge(partial(ask_responder, respond), name)


def llm_agency_judge(respond: Responder, name: str) -> AgencyJudge:
    """Return a judge of answers; `score` is None when the reply has no whole number from 0 to 5."""
    return prompted_agency_judge(partial(ask_responder, respond), name)


def prompted_agreement_judge(ask: Ask, name: str) -> AgreementJudge:
    """Return a judge of round endings; a verdict that did not come is None and its text says why."""

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
        return [_read_agreement(name, reply) for reply in ask("agreement", prompts)]

    return judge


def prompted_agency_judge(ask: Ask, name: str) -> AgencyJudge:
    """Return a judge of answers; a score that did not come is None and its text says why."""

    def judge(answers: Sequence[Answer]) -> list[Verdict]:
        prompts = [fill("agency", dilemma=answer.dilemma, answer=answer.answer) for answer in answers]
        return [_read_agency(name, reply) for reply in ask("agency", prompts)]

    return judge


def expected_agency_judge(weigh: Weigh, name: str) -> AgencyJudge:
    """Return a judge of answers whose score is the mean of 0 to 5 under a model's probabilities of the next token.

    The probabilities are normalised over the six numbers (Liu et al. 2023, G-Eval, section 2.3), so an answer has a
    score even where the model would rather write something else. `uncertainty` is their standard deviation; the text
    says how probable the six are together.
    """

    def judge(answers: Sequence[Answer]) -> list[Verdict]:
        prompts = [fill("agency", dilemma=answer.dilemma, answer=answer.answer) for answer in answers]
        if not prompts:
            return []
        logprob_NK = weigh([({"role": "user", "content": prompt},) for prompt in prompts], SCORES)
        return [_expect_score(name, logprob_K) for logprob_K in logprob_NK]

    return judge


def _expect_score(name: str, logprob_K: NDArray[np.float64]) -> Verdict:
    total = float(np.logaddexp.reduce(logprob_K))
    share_K = np.exp(logprob_K - total)
    score_K = np.arange(len(SCORES))
    mean = float(share_K @ score_K)
    spread = float(share_K @ (score_K - mean) ** 2) ** 0.5
    text = f"the numbers 0 to 5 have {100 * np.exp(total):.2g} % of the probability"
    return Verdict(name, hash_template("agency"), mean, text, uncertainty=spread)


def ask_responder(respond: Responder, target: Target, prompts: Sequence[str]) -> list[Reply]:
    """Ask anything that answers requests, greedily."""
    requests = [Request(target, ({"role": "user", "content": prompt},), GREEDY, seed=0) for prompt in prompts]
    return [_to_reply(completion) for completion in (respond(requests) if requests else [])]


def ask_access(
    access: ModelAccess, sampling: Sampling, repeat: int, target: Target, prompts: Sequence[str]
) -> list[Reply]:
    """Ask a model behind an address; the prompt's template is the one named `target`."""
    template_hash = hash_template(target)
    return access.ask(
        [
            Question(({"role": "user", "content": prompt},), sampling, template_hash, f"judge/{target}", repeat)
            for prompt in prompts
        ]
    )


def _to_reply(completion: Completion) -> Reply:
    failed = completion.finish == "error"
    return Reply(None, "the reply never came") if failed else Reply(completion.text)


def _read_agreement(name: str, reply: Reply) -> Verdict:
    agreed, reason = (None, "") if reply.text is None else parse_agreement(reply.text)
    if agreed is None:
        return Verdict(name, hash_template("agreement"), None, reply.problem or NO_VERDICT)
    return Verdict(name, hash_template("agreement"), float(agreed), reason, agreed)


def _read_agency(name: str, reply: Reply) -> Verdict:
    score, reason = (None, "") if reply.text is None else parse_agency(reply.text)
    text = reason if score is not None else reply.problem or NO_VERDICT
    return Verdict(name, hash_template("agency"), score, text)
