"""Changes of the store: their history, and subscriptions to them.

The history has a bounded length; older events are compacted, and asking for them is an `Expired` refusal.

A subscription has a queue without bound: its readers live in the same process and keep up; a bound would only turn a
slow reader into a lost change.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pilothouse_simulator.values.api_errors import expired
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class StoreEvent:
    """One change. `previous` is the object before it (None for ADDED); DELETED carries the last state with the
    resourceVersion of the deletion itself.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: ResourceType
    object: JsonObject
    previous: JsonObject | None
    resource_version: int


class Subscription:
    """An async iterator over the changes after its creation. Close it when done."""

    def __init__(self, resource: ResourceType | None, on_close: Callable[[Subscription], None]) -> None:
        self._on_close = on_close
        self._resource = resource
        self._queue: asyncio.Queue[StoreEvent | None] = asyncio.Queue()
        self._closed = False

    def offer(self, event: StoreEvent) -> None:
        """Called by the store for each change."""
        if self._resource is None or event.resource is self._resource:
            self._queue.put_nowait(event)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> StoreEvent:
        if self._closed and self._queue.empty():
            raise StopAsyncIteration
        event = await self._queue.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next_batch(self) -> list[StoreEvent]:
        """Waits for one change and returns it with all others already queued; empty when closed."""
        first = await self._queue.get()
        batch = [] if first is None else [first]
        while not self._queue.empty():
            event = self._queue.get_nowait()
            if event is not None:
                batch.append(event)
        return batch

    def close(self) -> None:
        """Ends the iteration; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._queue.put_nowait(None)


class WatchHistory:
    """The last changes of the store, oldest first, at most `length` of them."""

    def __init__(self, length: int) -> None:
        self.compacted_revision = self._watched_from = 0
        self._length = length
        self._events: deque[StoreEvent] = deque()

    def add(self, event: StoreEvent) -> None:
        """Notes a change; the oldest one may fall out."""
        self._events.append(event)
        while len(self._events) > self._length:
            self.compacted_revision = self._events.popleft().resource_version

    def after(self, resource: ResourceType, revision: int) -> Sequence[StoreEvent]:
        """The changes of the type after `revision`, oldest first. Refuses a compacted revision with 410."""
        oldest = max(self.compacted_revision, self._watched_from)
        if revision < oldest:
            raise expired(f"too old resource version: {revision} ({oldest})")
        found = [*self._back_to(resource, revision)]
        found.reverse()
        return found

    def undo(self, resource: ResourceType, revision: int) -> Iterator[StoreEvent]:
        """The changes of the type after `revision`, newest first. Refuses a compacted revision with 410."""
        if revision < self.compacted_revision:
            raise expired("The resourceVersion for the provided list is too old.")
        return self._back_to(resource, revision)

    def forget_for_watches(self, revision: int) -> None:
        """No watch begins before `revision` any more; lists of the past still do. A fresh server's cache is so."""
        self._watched_from = revision

    def compact(self, revision: int) -> None:
        """Forgets the changes up to `revision`."""
        while self._events and self._events[0].resource_version <= revision:
            self._events.popleft()
        self.compacted_revision = max(self.compacted_revision, revision)

    def _back_to(self, resource: ResourceType, revision: int) -> Iterator[StoreEvent]:
        for event in reversed(self._events):
            if event.resource_version <= revision:
                return
            if event.resource is resource:
                yield event
