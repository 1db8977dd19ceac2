"""Requests whose body has not arrived yet.

A client may open a call and send nothing. So long as it does, the call holds no seat; it stands here, for some seconds
at most. There is room for so many: where it is used up, who has most calls here loses the oldest. A body that is sent
at once is here for one turn of the event loop, so this ends no call of a client that means it.

All wait equally long, so one timer serves them: it looks at the oldest. Those that came together do not end together:
each that ends is answered and perhaps recorded, and hundreds in one turn of the loop would hold up everybody else. So a
few end at a time, some hundred a second, and the last of many somewhat late.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from pilothouse_server.errors import InvalidArgument, ResourceExhausted
from pilothouse_server.rpc.admission.limiter import RETRY_SECONDS

T = TypeVar("T")

# So many end in one turn of the event loop, and after so long the next.
_AT_ONCE = 5
_PAUSE_SECONDS = 0.01


class Bodies:
    """Bodies that are waited for: `most` of them, `seconds` each."""

    def __init__(self, most: int, seconds: float, on_refused: Callable[[], None] = lambda: None) -> None:
        self._most = most
        self._seconds = seconds
        self._on_refused = on_refused
        # What ends the wait of each, with whose it is and until when it may last; the oldest first.
        self._waiting: dict[asyncio.Timeout, tuple[Hashable, float]] = {}
        self._of: Counter[Hashable] = Counter()
        self._pushed_out: set[asyncio.Timeout] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many are waited for."""
        return len(self._waiting)

    async def arrives(self, body: Awaitable[T], key: Hashable) -> T:
        """Returns the body, of a call of `key`: a user or an address.

        Raises:
            InvalidArgument: it has not come in time.
            ResourceExhausted: too many are waited for, and most of them are of `key`.
        """
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._enter(limit, key)
                return await body
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._ended(limit) from None
        finally:
            self._exit(limit)
            self._pushed_out.discard(limit)

    def _enter(self, limit: asyncio.Timeout, key: Hashable) -> None:
        loop = asyncio.get_running_loop()
        if len(self._waiting) >= self._most:
            self._push_out(loop.time())
        until = loop.time() + self._seconds
        self._waiting[limit] = key, until
        self._of[key] += 1
        if self._timer is None:
            self._timer = loop.call_at(until, self._look)

    def _exit(self, limit: asyncio.Timeout) -> None:
        entry = self._waiting.pop(limit, None)
        if entry is None:
            return
        key = entry[0]
        self._of[key] -= 1
        if not self._of[key]:
            del self._of[key]

    def _push_out(self, now: float) -> None:
        ((most, _),) = self._of.most_common(1)
        oldest = next(limit for limit, (key, _) in self._waiting.items() if key == most)
        self._exit(oldest)
        self._pushed_out.add(oldest)
        oldest.reschedule(now)

    def _look(self) -> None:
        """Ends some of those whose time is over; looks again when that of the next one is."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for _ in range(_AT_ONCE):
            if not self._waiting:
                return
            limit, (_key, until) = next(iter(self._waiting.items()))
            if until > now:
                self._timer = loop.call_at(until, self._look)
                return
            self._exit(limit)
            limit.reschedule(now)
        self._timer = loop.call_later(_PAUSE_SECONDS, self._look)

    def _ended(self, limit: asyncio.Timeout) -> InvalidArgument | ResourceExhausted:
        self._on_refused()
        if limit not in self._pushed_out:
            return InvalidArgument(
                f"the request did not arrive within {self._seconds:g} s: send it with the call",
                reason="REQUEST_TIMEOUT",
            )
        return ResourceExhausted(
            "too many calls wait for their requests: send each with its call",
            reason="TOO_MANY_CALLS",
            metadata={"class": "requests", "limit_of": "caller"},
            retry_after_seconds=RETRY_SECONDS,
        )
