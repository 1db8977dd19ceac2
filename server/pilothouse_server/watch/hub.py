"""The newest events of this server, shared by all its watchers.

There is no queue per watcher. The hub is a ring of the last events in commit order; each watcher has only
its own position. One that is behind the ring reads from the database until it is in the ring again
(`Feed.read`), so a slow one costs no memory, and none is given a gap. A watcher that has nothing to read
waits for `beyond`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from pilothouse_server.store.feed import FeedEvent


class Watermark:
    """A number that only grows, and those who wait for it to pass theirs."""

    def __init__(self) -> None:
        self.newest = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def advance(self, newest: int) -> None:
        """Raises the number and wakes who waits."""
        if newest > self.newest:
            self.newest = newest
            self.wake()

    def wake(self) -> None:
        """Lets everybody who waits look again."""
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            _look_again(each)

    async def beyond(self, position: int, timeout_seconds: float) -> bool:
        """Waits until the number has passed `position`; False when the time has passed without."""
        if self.newest > position:
            return True
        # One for each who waits: one for all is searched for each of them as they leave.
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._waiting.add(waiting)
        timer = loop.call_later(timeout_seconds, _look_again, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)
        return self.newest > position


def _look_again(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Hub:
    """A ring of events. `newest` is the revision up to which this server has seen everything.

    `records` is the newest sequence of the audit log; its records are read from the database by who watches
    them.
    """

    def __init__(self, capacity: int) -> None:
        self._ring: deque[FeedEvent] = deque(maxlen=capacity)
        self._events = Watermark()
        self._history = ""
        self.records = Watermark()

    @property
    def newest(self) -> int:
        """Revision up to which everything was published."""
        return self._events.newest

    @property
    def history(self) -> str:
        """Identifier of the line of events; another after a restore."""
        return self._history

    def begin(self, revision: int, sequence: int, history: str) -> None:
        """Starts (again) at a revision: what lies before must be read from the database."""
        self._ring.clear()
        self._history = history
        self._events.newest, self.records.newest = revision, sequence
        self._events.wake()
        self.records.wake()

    def wake(self) -> None:
        """Lets every watcher look again: what its caller may see has changed."""
        self._events.wake()

    def publish(self, events: Sequence[FeedEvent], newest: int) -> None:
        """Adds events that follow on what was published, up to `newest`."""
        if events and self._ring and events[0].revision != self._ring[-1].revision + 1:
            # What lies between is gone: a watcher in the ring must not step over it unawares.
            self._ring.clear()
        self._ring.extend(events)
        self._events.advance(newest)

    def audited(self, sequence: int) -> None:
        """Notes that the audit log holds records up to `sequence`."""
        self.records.advance(sequence)

    def since(self, revision: int) -> list[FeedEvent] | None:
        """The events after `revision`; None if the ring does not hold them all.

        A watcher's place moves with what it is given, so what is given has no hole, and is never nothing while
        there is something.
        """
        newest = self.newest
        if revision >= newest:
            return []
        if not self._ring or self._ring[0].revision > revision + 1:
            return None
        found: list[FeedEvent] = []
        if newest - revision < 64:
            for event in reversed(self._ring):
                if event.revision <= revision:
                    break
                found.append(event)
            found.reverse()
        else:
            found = [event for event in self._ring if event.revision > revision]
        return found if len(found) == newest - revision else None

    async def beyond(self, revision: int, timeout_seconds: float) -> bool:
        """Waits until something after `revision` was published; False when the time has passed without."""
        return await self._events.beyond(revision, timeout_seconds)
