"""What may still be spent: money is set aside before a question is sent and given back when its reply is booked."""

import asyncio
from collections.abc import Callable


class Budget:
    """The cap of one run; `cap=None` sets none. Use it from one event loop."""

    def __init__(self, cap: float | None, read_spent: Callable[[], float]) -> None:
        """Take the cap in dollars and a reader of what the run has spent, in other processes too."""
        self._cap = cap
        self._read_spent = read_spent
        self._reserved = 0.0
        self._under_way = 0
        self._changed = asyncio.Condition()

    async def reserve(self, dollars: float) -> bool:
        """Set money aside; return False when it would not fit even after everything under way is booked."""
        async with self._changed:
            while self._cap is not None and self._read_spent() + self._reserved + dollars > self._cap:
                if self._under_way == 0:
                    return False
                # A reply mostly costs less than was set aside for it.
                await self._changed.wait()
            self._reserved += dollars
            self._under_way += 1
            return True

    async def give_back(self, dollars: float) -> None:
        """Give back what was set aside, after the reply was booked."""
        async with self._changed:
            self._under_way -= 1
            self._reserved = self._reserved - dollars if self._under_way else 0.0
            self._changed.notify_all()
