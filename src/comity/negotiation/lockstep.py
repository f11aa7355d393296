"""Drive many negotiations at once: one batch of texts and one batch of checks per round."""

from collections.abc import Callable, Sequence

from comity.config import NegotiationConfig
from comity.negotiation.protocol import advance, pending
from comity.types import AgreementJudge, Check, Negotiation, Request, Responder, RoundEnding, Verdict

Progress = Callable[[Sequence[Negotiation]], None]


def play(
    negotiations: Sequence[Negotiation],
    rules: NegotiationConfig,
    responder: Responder,
    judge: AgreementJudge,
    seed: int = 0,
    always_complete: bool = False,
    on_progress: Progress | None = None,
) -> list[Negotiation]:
    """Play every negotiation to its end and return them in the given order.

    `responder` answers a batch of requests, `judge` a batch of round endings; both keep the order.
    """
    states = list(negotiations)
    while True:
        awaited = [pending(state, rules, seed, always_complete) for state in states]
        requests = [(i, item) for i, item in enumerate(awaited) if isinstance(item, Request)]
        endings = [(i, item) for i, item in enumerate(awaited) if isinstance(item, RoundEnding)]
        if not requests and not endings:
            return states
        if endings:
            verdicts = judge([item for _, item in endings])
            for (i, _), verdict in zip(endings, verdicts, strict=True):
                states[i] = advance(states[i], to_check(verdict), rules)
        if requests:
            replies = responder([item for _, item in requests])
            for (i, _), reply in zip(requests, replies, strict=True):
                states[i] = advance(states[i], reply, rules)
        if on_progress is not None:
            on_progress(states)


def to_check(verdict: Verdict) -> Check:
    """Return the judge's word in the form that the protocol takes, which numbers the round itself."""
    return Check(0, verdict.agreed, verdict.text, verdict.score)
