"""What trainers tell the driver while they run, and whether a run directory is theirs."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from comity.errors import ComityError

WAIT_SECONDS = 1.0
"""How long the driver waits for news before it looks whether the run has ended."""
Event = tuple[str, tuple[Any, ...]]
"""The name of a callback and what it gets."""


class Journal:
    """News of the trainers for the driver; runs as an actor beside the driver, so it lives as long."""

    def __init__(self) -> None:
        self.starts: Counter[int] = Counter()
        self.claimed = False
        self.failure: ComityError | OSError | None = None
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.decided = asyncio.Event()

    async def begin(self, rank: int) -> tuple[int, bool]:
        """Return how often this rank has started by now, and whether the run directory was found to be this run's."""
        self.starts[rank] += 1
        return self.starts[rank], self.claimed

    async def decide(self, objection: ComityError | OSError | None) -> None:
        """Let all ranks go on in the run directory, or end them."""
        self.claimed, self.failure = objection is None, objection
        self.decided.set()

    async def may_go_on(self) -> bool:
        """Wait for the first rank's word on the run directory; return whether there is a reason to go on."""
        await self.decided.wait()
        return self.failure is None

    async def fail(self, failure: ComityError | OSError) -> None:
        """Keep an error of the user, with which the run ends."""
        self.failure = self.failure or failure

    async def find_failure(self) -> ComityError | OSError | None:
        """Return the error with which the run ended, if one did."""
        return self.failure

    async def tell(self, name: str, *values: Any) -> None:
        """Add one piece of news."""
        self.events.put_nowait((name, values))

    async def take(self, wait_seconds: float) -> list[Event]:
        """Return all news there is, after waiting for some for a while."""
        try:
            found = [await asyncio.wait_for(self.events.get(), wait_seconds)]
        except TimeoutError:
            return []
        while not self.events.empty():
            found.append(self.events.get_nowait())
        return found


def start_journal() -> ActorHandle:
    """Start the journal on the driver's machine."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Journal).options(num_cpus=0, scheduling_strategy=here).remote()


def follow(journal: ActorHandle, callbacks: dict[str, Callable[..., None]], work: Callable[[], None]) -> None:
    """Do the work in a thread and call back with the news meanwhile; raise what the work raised.

    The thread that calls stays free for an interrupt of the user, which Ray Train would otherwise take for itself.
    """
    raised: list[BaseException] = []

    def do_work() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=do_work, name="ray-train", daemon=True)
    thread.start()
    going = True
    while going:
        going = thread.is_alive()  # once more after its end, for the news of that moment
        for name, values in ray.get(journal.take.remote(WAIT_SECONDS if going else 0.01)):
            callbacks[name](*values)
    if raised:
        raise raised[0]
