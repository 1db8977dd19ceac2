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


class Hub:
    """A ring of events. `newest` is the revision up to which this server has seen everything."""

    def __init__(self, capacity: int) -> None:
        self._ring: deque[FeedEvent] = deque(maxlen=capacity)
        self._newest = 0
        self._history = ""
        self._changed: asyncio.Future[None] | None = None

    @property
    def newest(self) -> int:
        """Revision up to which everything was published."""
        return self._newest

    @property
    def history(self) -> str:
        """Identifier of the line of events; another after a restore."""
        return self._history

    def begin(self, revision: int, history: str) -> None:
        """Starts (again) at a revision: what lies before must be read from the database."""
        self._ring.clear()
        self._newest = revision
        self._history = history
        self._wake()

    def publish(self, events: Sequence[FeedEvent], newest: int) -> None:
        """Adds events that follow on what was published, up to `newest`."""
        self._ring.extend(events)
        if newest > self._newest:
            self._newest = newest
            self._wake()

    def since(self, revision: int) -> list[FeedEvent] | None:
        """The events after `revision`; None if the ring no longer holds them all."""
        if revision >= self._newest:
            return []
        if not self._ring or self._ring[0].revision > revision + 1:
            return None
        behind = self._newest - revision
        if behind < 64:
            found: list[FeedEvent] = []
            for event in reversed(self._ring):
                if event.revision <= revision:
                    break
                found.append(event)
            found.reverse()
            return found
        return [event for event in self._ring if event.revision > revision]

    async def beyond(self, revision: int, timeout_seconds: float) -> bool:
        """Waits until something after `revision` was published; False when the time has passed without."""
        if self._newest > revision:
            return True
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._changed], timeout=timeout_seconds)
        return self._newest > revision

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None
