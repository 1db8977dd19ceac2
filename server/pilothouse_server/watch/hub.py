"""The newest events of this server, shared by all its watchers.

There is no queue per watcher. The hub is a ring of the last events in commit order; each watcher has only
its own position. A watcher that has fallen behind the ring reads from the database until it is in the ring
again (`Feed.read`), so a slow watcher costs no memory, and no watcher misses an event. A watcher that has
nothing to read waits in `beyond`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice

from pilothouse_server.store.feed import FeedEvent

# A watcher of an idle namespace is woken after this many events of other namespaces, so that it stays in the ring.
_MOST_BEHIND = 64


class Watermark:
    """A number that only grows, and its waiters.

    Each waits until the number passes its position. A waiter may name one topic, and is then woken at events about it,
    or name None for all topics.
    """

    def __init__(self) -> None:
        self.newest = 0
        # The waiters by topic; None for all topics.
        self._waiting: dict[Hashable, set[asyncio.Future[None]]] = {}

    def advance(self, newest: int) -> None:
        """Raises the number and wakes all waiters."""
        if newest > self.newest:
            self.newest = newest
            self.wake()

    def advance_for(self, newest: int, about: Iterable[Hashable]) -> None:
        """Raises the number and wakes the waiters for these topics, or for all topics."""
        if newest > self.newest:
            self.newest = newest
            for each in {None, *about}:
                _wake(self._waiting.pop(each, ()))

    def wake(self) -> None:
        """Wakes all waiters, which then check again."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            _wake(each)

    async def beyond(self, position: int, timeout_seconds: float, about: Hashable = None) -> bool:
        """Waits until the number has passed `position`; returns False on timeout.

        A waiter with a topic may notice other topics late, at the latest at the timeout.
        """
        if self.newest > position:
            return True
        # One future for each waiter: a shared one would be searched for the callback of each waiter that leaves.
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._waiting.setdefault(about, set()).add(waiting)
        timer = loop.call_later(timeout_seconds, _look_again, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            if (others := self._waiting.get(about)) is not None:
                others.discard(waiting)
                if not others:
                    del self._waiting[about]
        return self.newest > position


def _wake(waiting: Iterable[asyncio.Future[None]]) -> None:
    for each in waiting:
        _look_again(each)


def _look_again(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Hub:
    """A ring of events.

    `newest` is the revision up to which this server has seen everything. `records` is the newest sequence of the audit
    log; watchers of records read them from the database.
    """

    def __init__(self, capacity: int) -> None:
        self._ring: deque[FeedEvent] = deque(maxlen=capacity)
        self._events = Watermark()
        self._history = ""
        self._all_woken_at = 0
        # At most an eighth of the ring, so that no watcher falls out of it before it is woken.
        self._most_behind = min(_MOST_BEHIND, capacity // 8)
        self.records = Watermark()

    @property
    def newest(self) -> int:
        """Revision up to which everything was published."""
        return self._events.newest

    @property
    def newest_mark(self) -> bytes | None:
        """The mark of the event at that revision; None if the ring does not hold it."""
        newest = self._ring[-1] if self._ring else None
        return newest.mark if newest is not None and newest.revision == self.newest else None

    @property
    def history(self) -> str:
        """Identifier of the history of events; a rewind of the database changes it."""
        return self._history

    def begin(self, revision: int, sequence: int, history: str) -> None:
        """Starts or restarts at a revision.

        Earlier events must be read from the database.
        """
        self._ring.clear()
        self._history = history
        self._all_woken_at = revision
        self._events.newest, self.records.newest = revision, sequence
        self._events.wake()
        self.records.wake()

    def wake(self) -> None:
        """Wakes every watcher to check again: its caller may see other namespaces now."""
        self._events.wake()

    def publish(self, events: Sequence[FeedEvent], newest: int) -> None:
        """Adds the events after the published ones, up to `newest`.

        A watcher of one namespace is woken by events of that namespace, and otherwise at intervals: hundreds of watches
        that check every event of every tenant would cost more than the events.
        """
        if events and self._ring and events[0].revision != self._ring[-1].revision + 1:
            # The events in between are not here: a watcher in the ring must not skip them without noticing.
            self._ring.clear()
        self._ring.extend(events)
        if newest - self._all_woken_at >= self._most_behind or not events:
            self._all_woken_at = newest
            self._events.advance(newest)
        else:
            self._events.advance_for(newest, {event.namespace_id for event in events})

    def audited(self, sequence: int) -> None:
        """Sets the newest sequence of the audit log and wakes the watchers of records."""
        self.records.advance(sequence)

    def since(self, revision: int) -> list[FeedEvent] | None:
        """Returns the events after `revision`; None if the ring does not hold them all.

        The caller moves its position by the result, so the result has no gap, and is never empty while there are
        events.
        """
        newest, ring = self.newest, self._ring
        if revision >= newest:
            return []
        if not ring or ring[0].revision > revision + 1 or ring[-1].revision != newest:
            return None
        found = list(islice(reversed(ring), newest - revision))
        found.reverse()
        # If the ring had a gap among these events, the first of them would be an earlier one.
        return found if found[0].revision == revision + 1 else None

    async def beyond(self, revision: int, timeout_seconds: float, namespace_id: int | None = None) -> bool:
        """Waits until an event after `revision` was published; False on timeout.

        If a namespace is given, events of other namespaces may be noticed late, at the latest at the timeout.
        """
        return await self._events.beyond(revision, timeout_seconds, namespace_id)
