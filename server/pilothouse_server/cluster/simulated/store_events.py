"""Changes of the store, and subscriptions to them.

A subscription has a queue without bound: its readers live in the same process and take what comes; a bound
would only turn a slow reader into a lost change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .resources import ResourceType

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
