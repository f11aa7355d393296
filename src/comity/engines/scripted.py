"""Responders and judges that answer from a script: for tests, for demonstrations without a model, for replays."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeVar

from comity.types import AgreementJudge, Completion, Request, Responder, RoundEnding, Verdict

Item = TypeVar("Item")


def scripted_responder(lines: Sequence[str | Completion] | Callable[[Request], str | Completion]) -> Responder:
    """Return a responder that takes its replies from a list, in order, or from a function of the request.

    A `Completion` is passed on as it is, so a script can also hold a reply that failed. A list that runs out raises
    IndexError with the number of replies it held.
    """
    take = lines if callable(lines) else _taker(lines, "replies")

    def respond(requests: Sequence[Request]) -> list[Completion]:
        replies = [take(request) for request in requests]
        return [reply if isinstance(reply, Completion) else Completion(reply) for reply in replies]

    return respond


def scripted_judge(decisions: Sequence[bool | None] | Callable[[RoundEnding], bool | None]) -> AgreementJudge:
    """Return an agreement judge that takes its decisions from a list, in order, or from a function of the round.

    None stands for a judge that failed. A list that runs out raises IndexError with the number of verdicts it held.
    """
    take = decisions if callable(decisions) else _taker(decisions, "verdicts")

    def judge(endings: Sequence[RoundEnding]) -> list[Verdict]:
        return [_verdict(take(ending)) for ending in endings]

    return judge


def _taker(script: Sequence[Item], what: str) -> Callable[[object], Item]:
    numbers = count()

    def take(_asked: object) -> Item:
        number = next(numbers)
        if number >= len(script):
            raise IndexError(f"the script holds {len(script)} {what} and number {number + 1} was asked for: write more")
        return script[number]

    return take


def _verdict(agreed: bool | None) -> Verdict:
    score = None if agreed is None else float(agreed)
    return Verdict(judge="scripted", template_hash="", score=score, agreed=agreed)
