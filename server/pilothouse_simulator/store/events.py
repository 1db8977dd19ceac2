"""Changes of the store: their history, and subscriptions to them.

The history has a bounded length; older events are compacted, and a request for them is refused with `Expired`.

A subscription has an unbounded queue, because its readers run in the same process and keep up. With a bound, a slow
reader would lose changes.
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
    """One change.

    `previous` is the object before the change (None for ADDED). The `object` of DELETED is the last state with the
    resourceVersion of the deletion.
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
        """Adds a change to the queue if it matches the subscription. The store calls this for each change."""
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
        """Waits for one change and returns it with all others in the queue; empty after `close`."""
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
        """Adds a change; compacts the oldest change if the history is full."""
        self._events.append(event)
        while len(self._events) > self._length:
            self.compacted_revision = self._events.popleft().resource_version

    def after(self, resource: ResourceType, revision: int) -> Sequence[StoreEvent]:
        """Returns the changes of the type after `revision`, oldest first. Raises 410 for a compacted revision."""
        oldest = max(self.compacted_revision, self._watched_from)
        if revision < oldest:
            raise expired(f"too old resource version: {revision} ({oldest})")
        found = [*self._back_to(resource, revision)]
        found.reverse()
        return found

    def undo(self, resource: ResourceType, revision: int) -> Iterator[StoreEvent]:
        """Yields the changes of the type after `revision`, newest first. Raises 410 for a compacted revision."""
        if revision < self.compacted_revision:
            raise expired("The resourceVersion for the provided list is too old.")
        return self._back_to(resource, revision)

    def forget_for_watches(self, revision: int) -> None:
        """Refuses watches from before `revision` but still allows lists, like the empty cache of a new server."""
        self._watched_from = revision

    def compact(self, revision: int) -> None:
        """Removes the changes up to `revision`."""
        while self._events and self._events[0].resource_version <= revision:
            self._events.popleft()
        self.compacted_revision = max(self.compacted_revision, revision)

    def _back_to(self, resource: ResourceType, revision: int) -> Iterator[StoreEvent]:
        for event in reversed(self._events):
            if event.resource_version <= revision:
                return
            if event.resource is resource:
                yield event
