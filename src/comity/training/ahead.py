"""Play the dialogues of coming steps while the policy learns from those of this one."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class PlayStopped(Exception):
    """The dialogues are no longer wanted."""


class PlayAhead(Generic[T]):
    """The work of a step and, in threads, that of the `lag` steps after it, up to step `last`.

    Which policy plays a step follows from `lag` alone, not from how fast anybody is: step n is prepared when step
    n - lag begins. With `lag` 0 everything happens in turns and in the caller's thread.
    """

    def __init__(self, lag: int = 0, last: int = 0) -> None:
        self.lag, self.last = lag, last
        self._begun: dict[int, Future[T]] = {}
        self._threads = ThreadPoolExecutor(lag + 1, thread_name_prefix="play") if lag else None
        self._stopped = threading.Event()

    def take(self, step: int, prepare: Callable[[int], Callable[[], T]]) -> T:
        """Return the result of a step, and begin those that may be played meanwhile.

        `prepare(step)` is called here, in the order of the steps, with the policy as it is now; what it returns does
        the work and may run in a thread.
        """
        if self._threads is None:
            return prepare(step)()
        for later in range(step, max(step, min(step + self.lag, self.last)) + 1):
            if later not in self._begun:
                self._begun[later] = self._threads.submit(prepare(later))
        return self._begun.pop(step).result()

    def check(self) -> None:
        """Raise PlayStopped once the work is no longer wanted; the work calls it now and then."""
        if self._stopped.is_set():
            raise PlayStopped

    def close(self) -> None:
        """Stop what was begun and wait until it has stopped."""
        self._stopped.set()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
