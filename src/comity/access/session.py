"""The work behind one open model: look up what was paid for, ask the rest with retries, and book every reply."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from comity.access.budget import Budget
from comity.access.limits import RateLimits
from comity.access.prices import Price
from comity.access.provider import Provider, describe_problem
from comity.access.records import OnReply, Question, Reply, Spend, estimate_input_tokens, hash_question
from comity.access.store import ReplyStore
from comity.config import AccessConfig
from comity.errors import SpendCapReached

LONGEST_BACKOFF_SECONDS = 60.0


class Session:
    """Everything of one open model; use it from one event loop."""

    def __init__(
        self, provider: Provider, store: ReplyStore, settings: AccessConfig, price: Price | None, run: str
    ) -> None:
        self._provider = provider
        self._store = store
        self._settings = settings
        self._price = price
        self._run = run
        self._limits = RateLimits(settings.requests_per_minute, settings.tokens_per_minute)
        self._budget = Budget(settings.max_spend, lambda: store.spent_dollars(run))

    async def ask(self, questions: Sequence[Question], on_reply: OnReply | None = None) -> list[Reply]:
        """Return the replies in order; raise the first error after everything under way has been stored."""
        places: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            places.setdefault(hash_question(self._provider.name, question), []).append(place)
        replies: dict[int, Reply] = {}

        def deliver(key: str, reply: Reply) -> None:
            # The same question twice is paid for once.
            again = replace(reply, cost=0.0, cached=True)
            for place in places[key]:
                replies[place] = reply if place == places[key][0] else again
                if on_reply is not None:
                    on_reply(place, replies[place])

        kept = self._store.find_replies(list(places))
        for key, reply in kept.items():
            deliver(key, reply)
        waiting = iter([key for key in places if key not in kept])
        errors: list[Exception] = []

        async def work(waiting: Iterator[str]) -> None:
            # Several of these share the iterator; after an error nobody takes another question.
            for key in waiting:
                try:
                    deliver(key, await self._buy(key, questions[places[key][0]]))
                except Exception as error:
                    errors.append(error)
                if errors:
                    return

        workers = min(self._settings.connections, len(places) - len(kept))
        await asyncio.gather(*(work(waiting) for _ in range(workers)))
        if errors:
            raise errors[0]
        return [replies[place] for place in range(len(questions))]

    async def read_spend(self) -> list[Spend]:
        """Return what this run spent on this model so far."""
        return [spend for spend in self._store.read_spend(self._run) if spend.model == self._provider.name]

    async def close(self) -> None:
        """Close the connections and the store."""
        await self._provider.close()
        self._store.close()

    async def _buy(self, key: str, question: Question) -> Reply:
        tokens = estimate_input_tokens(question)
        most = self._price.cost(tokens, question.sampling.max_tokens) if self._price else 0.0
        if not await self._budget.reserve(most):
            raise SpendCapReached(self._describe_cap(most))
        try:
            answered = True
            try:
                reply = await self._send_with_retries(question, tokens + question.sampling.max_tokens)
                cost = self._price.cost(reply.input_tokens, reply.output_tokens) if self._price else None
                reply = replace(reply, cost=cost)
            except Exception as error:
                self._provider.raise_fatal(error)
                reply, answered = Reply(None, describe_problem(error)), False
            self._store.save_call(key, self._run, question.account, self._provider.name, reply, answered)
            return reply
        finally:
            await self._budget.give_back(most)

    async def _send_with_retries(self, question: Question, tokens: int) -> Reply:
        settings = self._settings
        first = settings.backoff_seconds
        backoff = wait_exponential(multiplier=first, max=LONGEST_BACKOFF_SECONDS) + wait_random(0, first)

        def wait_seconds(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = self._provider.retry_after_seconds(error) if error is not None else 0.0
            return max(backoff(state), min(asked, LONGEST_BACKOFF_SECONDS))

        async def send_once() -> Reply:
            await self._limits.acquire(tokens)
            async with asyncio.timeout(settings.timeout_seconds):
                return await self._provider.send(question)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(settings.retries + 1),
            wait=wait_seconds,
            retry=retry_if_exception(self._provider.is_transient),
            reraise=True,
        )
        return await retrying(send_once)

    def _describe_cap(self, most: float) -> str:
        spent = self._store.spent_dollars(self._run)
        return (
            f"access.max_spend is {self._settings.max_spend}: {spent:.4f} dollars are spent and the next question to "
            f"{self._provider.name} may cost {most:.4f}; every paid reply is stored, so raise --max-spend and run the "
            "same command again (train: with --resume)"
        )
