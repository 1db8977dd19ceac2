"""Requests whose body has not arrived yet.

A client may open a call and send nothing. Until its body arrives, the call holds no seat; it is registered here, for
some seconds at most. The number of places is bounded: if all are taken, the caller with the most calls here loses its
oldest. A body that is sent with its call is here for one iteration of the event loop, so no call of a well-behaved
client is ended.

All calls have the same time limit, so one timer serves them: it checks the oldest. Calls that arrived together do not
end together: each gets an error response and perhaps an audit record, and hundreds in one iteration of the event loop
would delay all other calls. So a few end at a time, some hundred a second, and the last of many end somewhat late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from pilothouse_server.errors import InvalidArgument, ResourceExhausted
from pilothouse_server.flowcontrol.fair_queue import too_many_calls
from pilothouse_server.runtime.tasks import Cut

T = TypeVar("T")

# The number of overdue calls that end in one iteration of the event loop, and the pause until the next ones.
_ENDED_TOGETHER = 5
_PAUSE_SECONDS = 0.01


class _Wait(Cut):
    """The wait for the body of one call of `key`, until a time of the loop's clock."""

    __slots__ = ("key", "made_room", "until")

    def __init__(self, key: Hashable, until: float) -> None:
        super().__init__()
        self.key = key
        self.until = until
        # Whether the wait was ended because another call needed its place.
        self.made_room = False


class PendingRequests:
    """At most `most` pending requests, each for `seconds`.

    `on_refused` is called with each call that ends here.
    """

    def __init__(self, most: int, seconds: float, on_refused: Callable[[], None] = lambda: None) -> None:
        self._most = most
        self._seconds = seconds
        self._on_refused = on_refused
        # The pending requests, the oldest first; and their number by caller.
        self._waiting: dict[_Wait, None] = {}
        self._of: dict[Hashable, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """The number of pending requests."""
        return len(self._waiting)

    async def receive(self, body: Awaitable[T], key: Hashable) -> T:
        """Returns the body of a call when it has arrived.

        `key` is the caller's user or address.

        Raises:
            InvalidArgument: the body has not arrived in time.
            ResourceExhausted: too many requests are pending, and `key` has most of them.
        """
        wait = self._enter(key)
        try:
            with wait:
                return await body
        except TimeoutError:
            if not wait.was_cut:
                raise
            raise self._ended(wait) from None
        finally:
            self._exit(wait)

    def _enter(self, key: Hashable) -> _Wait:
        if len(self._waiting) >= self._most:
            self._push_out()
        loop = asyncio.get_running_loop()
        wait = _Wait(key, loop.time() + self._seconds)
        self._waiting[wait] = None
        self._of[key] = self._of.get(key, 0) + 1
        if self._timer is None:
            self._timer = loop.call_at(wait.until, self._end_overdue)
        return wait

    def _exit(self, wait: _Wait) -> None:
        if wait not in self._waiting:
            return
        del self._waiting[wait]
        left = self._of[wait.key] - 1
        if left:
            self._of[wait.key] = left
        else:
            del self._of[wait.key]

    def _push_out(self) -> None:
        # Anonymous callers can have as many addresses as there are places. While they have more than half of the
        # places, one of their requests is pushed out, and none of a user.
        addresses = [key for key in self._of if isinstance(key, str)]
        theirs = sum(self._of[key] for key in addresses)
        most = max(addresses if 2 * theirs > self._most else self._of, key=self._of.__getitem__)
        oldest = next(wait for wait in self._waiting if wait.key == most)
        oldest.made_room = True
        self._exit(oldest)
        oldest.off()

    def _end_overdue(self) -> None:
        """Ends some calls that are overdue, and sets the timer for the next one."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for _ in range(_ENDED_TOGETHER):
            if not self._waiting:
                return
            oldest = next(iter(self._waiting))
            if oldest.until > now:
                self._timer = loop.call_at(oldest.until, self._end_overdue)
                return
            self._exit(oldest)
            oldest.off()
        self._timer = loop.call_later(_PAUSE_SECONDS, self._end_overdue)

    def _ended(self, wait: _Wait) -> InvalidArgument | ResourceExhausted:
        self._on_refused()
        if not wait.made_room:
            return InvalidArgument(
                f"the request did not arrive within {self._seconds:g} s: send it with the call",
                reason="REQUEST_TIMEOUT",
            )
        return too_many_calls("too many calls wait for their requests: send each with its call", "requests")
