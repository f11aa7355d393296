"""What a fleet knows of each of its servers, and which of them a request goes to."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNASKED = "not asked yet"
AFFINITY = 8
"""Dialogues with one beginning stay together on a server until it has so many more requests than another."""


@dataclass
class Standing:
    """What is known of one server; `trouble` is empty while it is ready."""

    address: str
    trouble: str = UNASKED
    was_skipped: bool = False
    """It had to be skipped, in this step or the last one, and has not been taken back."""
    under_way: int = 0

    @property
    def is_ready(self) -> bool:
        """Return whether requests go there."""
        return not self.trouble


@dataclass
class Tally:
    """What happened while a fleet was open."""

    skipped: int = 0
    """How often a server that was ready had to be skipped."""
    readmitted: int = 0
    """How often a skipped server became ready again."""
    asked_again: int = 0
    """Requests that went to another server."""
    refused: int = 0
    """Requests that no server would take."""
    push_seconds: float = 0.0
    """How long it took until the first server was ready for the policy."""


def choose(
    standings: Sequence[Standing], connections: int, prompt: NDArray[np.int32], tried: Sequence[Standing]
) -> Standing | None:
    """Return the server that a prompt (P,) goes to, None while all that are ready have `connections` requests.

    `tried` are those that failed this request: it goes to another one while there is any.
    """

    def order(item: Standing) -> tuple[int, int, bytes]:
        return tried.count(item), item.under_way // AFFINITY, _affinity(item.address, prompt)

    return min((item for item in standings if item.is_ready and item.under_way < connections), key=order, default=None)


def _affinity(address: str, prompt: NDArray[np.int32]) -> bytes:
    # Rollouts of a scenario begin alike, and a server computes a beginning that it has seen only once. The number of
    # tokens is less than the shortest system prompt with a dilemma; dialogues of one seat and persona stay together.
    return hashlib.sha256(address.encode() + prompt[:128].tobytes()).digest()
