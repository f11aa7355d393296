"""Who speaks for which seat: several players on one base model, and two of them in one dialogue."""

from collections.abc import Sequence
from dataclasses import dataclass

from comity.engines.local import LocalEngine
from comity.engines.merging import adapters_off
from comity.types import Completion, Request, Responder


@dataclass(frozen=True)
class Player:
    """A responder that speaks through one adapter of a shared model; `adapter=None` is the base model alone."""

    engine: LocalEngine
    adapter: str | None

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one completion a request, in order."""
        if self.adapter is None:
            with adapters_off(self.engine.model):
                return self.engine(requests)
        # Frozen: PEFT makes an adapter that is switched on trainable unless told otherwise.
        self.engine.model.set_adapter(self.adapter, inference_mode=True)
        return self.engine(requests)


def route_seats(first: Responder, second: Responder) -> Responder:
    """Return a responder in which `second` speaks for seat 1 and `first` answers everything else."""

    def respond(requests: Sequence[Request]) -> list[Completion]:
        replies: dict[int, Completion] = {}
        for responder, theirs in ((first, False), (second, True)):
            places = [i for i, request in enumerate(requests) if (request.target == "seat_1") is theirs]
            if places:
                answers = responder([requests[i] for i in places])
                replies.update(zip(places, answers, strict=True))
        return [replies[i] for i in range(len(requests))]

    return respond
