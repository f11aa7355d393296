"""A cheap judge first, another one for the rows that it is unsure of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from comity.types import Verdict

Item = TypeVar("Item")
Judge = Callable[[Sequence[Item]], Sequence[Verdict]]


@dataclass
class PassedOn:
    """How many rows a judge read, and how many of them it passed on to another; it counts up."""

    rows: int = 0
    passed: int = 0


def ask_first(
    first: Judge[Item], other: Judge[Item], is_doubtful: Callable[[Verdict], bool], count: PassedOn
) -> Judge[Item]:
    """Return a judge that keeps the first one's verdicts and asks the other about the doubtful rows.

    A row that was passed on has the other's verdict, also when that one gave none: it is unscored then, and the first
    one's guess does not stand in for it.
    """

    def judge(items: Sequence[Item]) -> list[Verdict]:
        verdicts = list(first(items))
        doubtful = [place for place, verdict in enumerate(verdicts) if is_doubtful(verdict)]
        count.rows += len(items)
        count.passed += len(doubtful)
        if doubtful:
            for place, verdict in zip(doubtful, other([items[place] for place in doubtful]), strict=True):
                verdicts[place] = verdict
        return verdicts

    return judge
