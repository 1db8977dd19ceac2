"""A kind's objects on one cluster, kept up to date by list and watch.

    list (pages of one snapshot) -> watch from its version -> ... -> 410 -> list again

A watch that ends or breaks resumes from the last version seen, bookmarks included, so nothing is read twice and nothing
is missed. After `Expired` the informer lists again, and reports objects that vanished in between as removed. A failure
is passed to `on_failure`, and the informer tries again after a pause; the known objects stay.

A cluster that was restored to an older state does not have the last version yet, and its watch would be silent until it
has caught up. So before a watch resumes, the informer reads the cluster's newest version. A cluster that was away for
longer than a moment is also listed again: it may have gone back and caught up since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from typing import Generic

from pilothouse_server.kubernetes.client import ClusterClient, object_key
from pilothouse_server.kubernetes.errors import (
    AnswerTooLarge,
    ClusterError,
    Expired,
    Throttled,
    Unreachable,
)
from pilothouse_server.kubernetes.fingerprints import older
from pilothouse_server.kubernetes.objects import Resource, T
from pilothouse_server.reconcile.queue.backoff import after_error
from pilothouse_server.runtime.event_loop import cooperatively

Key = tuple[str, str]
# A shorter watch counts as a failure, so that a server that ends each watch immediately is not flooded with requests.
SHORT_SECONDS = 1.0
MOST_SECONDS = 5.0


def _nothing() -> None:
    """Does nothing: the default without a comparison."""


class Informer(Generic[T]):
    """`on_change(old, new)` is called for every difference, with None for a missing object. It must not block."""

    def __init__(
        self,
        client: ClusterClient,
        resource: Resource[T],
        label_selector: str,
        on_change: Callable[[T | None, T | None], None],
        on_failure: Callable[[ClusterError], None],
        *,
        namespace: str | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._label_selector = label_selector
        self._namespace = namespace
        self._on_change = on_change
        self._on_failure = on_failure
        self.objects: dict[Key, T] = {}
        self.synced = asyncio.Event()
        # Called after each list, when all objects can be compared with their desired state.
        self.on_listed: Callable[[], None] = _nothing
        self._version = ""
        # The number of consecutive failures to reach the cluster.
        self._unreachable = 0

    async def run(self) -> None:
        """Follows the cluster until cancelled."""
        failures = 0
        while True:
            began, opened = monotonic(), None
            try:
                if not self._version or self._unreachable > 1 or await self._went_back():
                    await self._list()
                opened = monotonic()
                await self._watch()
                self._unreachable = 0
                failures = 0 if monotonic() - began >= SHORT_SECONDS else failures + 1
                if failures > 1:
                    await asyncio.sleep(SHORT_SECONDS)
            except Expired:
                self._version = ""
                failures += 1
                if failures > 1:
                    await asyncio.sleep(SHORT_SECONDS)
            except ClusterError as error:
                failures = failures + 1 if monotonic() - began < 2 * SHORT_SECONDS else 1
                self._count_unreachable(error, opened)
                self._on_failure(error)
                pause = after_error(error, failures)
                # A server that sends a time for the retry is not called earlier.
                await asyncio.sleep(pause if isinstance(error, Throttled) else min(MOST_SECONDS, pause))

    async def _list(self) -> None:
        gone, known = set(self.objects), frozenset(self.objects)
        version = ""
        pages = self._client.pages(self._resource, self._namespace, label_selector=self._label_selector)
        try:
            async with aclosing(pages):
                async for page in pages:
                    # An object that cannot be read any more stays as it was last read.
                    gone.difference_update(page.left_out)
                    async for item in cooperatively(page.items):
                        gone.discard(object_key(item))
                        self._put(item)
                    version = page.resource_version
                    # Thousands of objects: let others run between the pages.
                    await asyncio.sleep(0)
        except AnswerTooLarge:
            # Otherwise the informer would store more objects with each attempt.
            for key in self.objects.keys() - known:
                self._remove(key)
            raise
        for key in gone:
            self._remove(key)
        self._version, self._unreachable = version, 0
        self.synced.set()
        self.on_listed()

    def _count_unreachable(self, error: ClusterError, opened: float | None) -> None:
        if not isinstance(error, Unreachable):
            self._unreachable = 0
        elif opened is not None and monotonic() - opened >= 2 * SHORT_SECONDS:
            self._unreachable = 1
        else:
            self._unreachable += 1

    async def _went_back(self) -> bool:
        newest = await self._client.newest_version(self._resource, self._namespace)
        return older(newest, self._version)

    async def _watch(self) -> None:
        events = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
        )
        async with aclosing(events):
            async for event in events:
                if event.type == "DELETED":
                    self._remove(object_key(event.object))
                elif event.type != "BOOKMARK":
                    self._put(event.object)
                    if len(self.objects) > self._client.limits.objects:
                        self._version = ""
                        raise self._client.too_many(self._resource)
                self._version = event.resource_version or self._version

    def _put(self, item: T) -> None:
        key = object_key(item)
        old = self.objects.get(key)
        same = old is not None and old.metadata.resource_version == item.metadata.resource_version
        # A cluster that was restored to an older state uses versions again, for other states.
        if same and old == item:
            return
        self.objects[key] = item
        if old is not None and old.metadata.uid != item.metadata.uid:
            # The object was deleted and created again since the last event.
            self._on_change(old, None)
            old = None
        self._on_change(old, item)

    def _remove(self, key: Key) -> None:
        old = self.objects.pop(key, None)
        if old is not None:
            self._on_change(old, None)
