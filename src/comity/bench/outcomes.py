"""What a contender gives back for one repeat, and how it is found."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from comity.bench.work import Row


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of each part of one repeat, the tokens that count, and the rows that were worked on."""

    parts: dict[str, float]
    tokens: int
    rows: list[Row] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Return the seconds of all parts."""
        return sum(self.parts.values())


Contender = Callable[[int, Sequence[Row]], Outcome]
"""Do the work once: takes the number of the repeat and the rows that ours played, none where ours itself plays."""


class Stopwatch:
    """Seconds by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the seconds inside the context to the part."""
        begun = time.perf_counter()
        yield
        self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - begun
