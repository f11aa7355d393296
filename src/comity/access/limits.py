"""Requests and tokens per minute."""

from aiolimiter import AsyncLimiter


class RateLimits:
    """Wait until the next request is within the limits; use it from one event loop."""

    def __init__(self, requests_per_minute: int, tokens_per_minute: int) -> None:
        """Take limits; 0 sets none."""
        # Requests are let out second by second, since providers watch shorter spans than the minute they name.
        per_second = requests_per_minute / 60
        self._requests = None
        if requests_per_minute:
            self._requests = AsyncLimiter(max(per_second, 1.0), 1.0 if per_second >= 1 else 1 / per_second)
        self._tokens = AsyncLimiter(tokens_per_minute, 60.0) if tokens_per_minute else None

    async def acquire(self, tokens: int) -> None:
        """Wait for one request of about `tokens` tokens; one longer than a minute's share takes the whole minute."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            await self._tokens.acquire(min(tokens, self._tokens.max_rate))
