"""A token bucket per cluster: how many requests a second we allow ourselves.

API servers protect themselves by 429; this keeps a burst of work (a thousand containers at once) from getting there,
and keeps one cluster's burst from taking the connections that its watches and users' calls need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from pilothouse_server.kubernetes.errors import Throttled


class RateLimit:
    """Up to `burst` requests at once, `per_second` in the long run. Waiters are served in order of arrival.

    The bucket may go below zero: each waiter takes its token at once and sleeps until the debt would be paid, so
    no queue is needed and a cancelled waiter costs no more than its token.
    """

    def __init__(self, per_second: float, burst: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._updated = clock()

    async def acquire(self, deadline_seconds: float) -> None:
        """Waits for a token. Raises Throttled, at once, where the wait would pass the deadline."""
        wait = self.reserve(deadline_seconds)
        if wait > 0:
            await asyncio.sleep(wait)

    def reserve(self, deadline_seconds: float) -> float:
        """Takes a token; returns the seconds to wait before it may be used. Raises Throttled."""
        now = self._clock()
        tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_second)
        self._updated, self._tokens = now, tokens
        wait = (1 - tokens) / self._per_second
        if wait > deadline_seconds:
            raise Throttled("too many requests for this cluster are waiting", retry_after_seconds=wait)
        self._tokens = tokens - 1
        return max(0.0, wait)
