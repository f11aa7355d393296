"""Drive many negotiations at once without rounds: each goes on as soon as what it awaits has come.

This suits servers with continuous batching. The judge's word is asked for as soon as a round ends, while other
dialogues are still being written; no dialogue waits for a slower one. `lockstep` plays the same dialogues in rounds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self, TypeVar

from comity.config import NegotiationConfig
from comity.negotiation.lockstep import Progress, to_check
from comity.negotiation.protocol import advance, pending
from comity.types import Completion, Negotiation, Request, RoundEnding, Verdict

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AsyncResponder = Callable[[Request], Awaitable[Completion]]
"""Answers one request; many may be under way at once."""
AsyncAgreementJudge = Callable[[RoundEnding], Awaitable[Verdict]]
"""Judges one ended round; many may be under way at once."""


def stream(
    negotiations: Sequence[Negotiation],
    rules: NegotiationConfig,
    responder: AsyncResponder,
    judge: AsyncAgreementJudge,
    seed: int = 0,
    always_complete: bool = False,
    on_progress: Progress | None = None,
) -> list[Negotiation]:
    """Play every negotiation to its end in an event loop of its own; return them in the given order.

    The result is that of `lockstep.play` wherever replies do not depend on their neighbours. `on_progress` gets the
    dialogues after each turn of the event loop that moved one. The first error ends all dialogues and is raised.
    """
    return asyncio.run(play_streaming(negotiations, rules, responder, judge, seed, always_complete, on_progress))


async def play_streaming(
    negotiations: Sequence[Negotiation],
    rules: NegotiationConfig,
    responder: AsyncResponder,
    judge: AsyncAgreementJudge,
    seed: int = 0,
    always_complete: bool = False,
    on_progress: Progress | None = None,
) -> list[Negotiation]:
    """Do what `stream` does, in the event loop that is running."""
    states = list(negotiations)
    told = _Announcement(states, on_progress)

    async def play_one(place: int) -> None:
        while (awaited := pending(states[place], rules, seed, always_complete)) is not None:
            if isinstance(awaited, RoundEnding):
                states[place] = advance(states[place], to_check(await judge(awaited)), rules)
            else:
                states[place] = advance(states[place], await responder(awaited), rules)
            told.announce()

    try:
        async with asyncio.TaskGroup() as group:
            for place in range(len(states)):
                group.create_task(play_one(place))
    except BaseExceptionGroup as errors:
        # Callers know the errors of responders and judges, not groups of them.
        raise errors.exceptions[0] from None
    return states


class _Announcement:
    """Calls `on_progress` once for all dialogues that moved in the same turn of the event loop."""

    def __init__(self, states: Sequence[Negotiation], on_progress: Progress | None) -> None:
        self._states = states
        self._on_progress = on_progress
        self._is_due = False

    def announce(self) -> None:
        if self._on_progress is not None and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._is_due = False
        assert self._on_progress is not None
        self._on_progress(self._states)


class Gatherer(Generic[Item, Answer]):
    """Makes single questions out of a function that takes many at once and blocks; use it from one event loop.

    What is asked while every call is under way is put together for the next one. Each call runs in a thread; at most
    `calls_at_once` run at the same time, so 1 is right for a function that must not be entered twice. Close it, or use
    it in a `with` statement.
    """

    def __init__(self, function: Callable[[Sequence[Item]], Sequence[Answer]], calls_at_once: int = 1) -> None:
        """Take the function, which answers in order."""
        self._function = function
        self._calls_at_once = calls_at_once
        self._threads = ThreadPoolExecutor(calls_at_once, thread_name_prefix="gatherer")
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._callers: set[asyncio.Task[None] | None] = set()

    async def __call__(self, item: Item) -> Answer:
        """Return the answer to one item."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if len(self._callers) < self._calls_at_once:
            self._callers.add(asyncio.create_task(self._call()))
        return await answer

    def close(self) -> None:
        """Wait for the calls under way and end the threads."""
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _call(self) -> None:
        try:
            await asyncio.sleep(0)  # others that are asked in the same turn of the loop come along
            await self._answer_waiting()
        finally:
            # In the same turn in which nothing was waiting: whoever asks from now on begins a new call.
            self._callers.discard(asyncio.current_task())

    async def _answer_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                loop = asyncio.get_running_loop()
                answers = await loop.run_in_executor(self._threads, self._function, [item for item, _ in batch])
                pairs = list(zip(batch, answers, strict=True))
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), value in pairs:
                if not answer.done():  # whoever asked may have left
                    answer.set_result(value)
