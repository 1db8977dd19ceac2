"""The common part of all controllers of the simulated cluster.

`ObjectIndex` corresponds to the informers' caches of a real controller manager: it indexes dependents by owner uid, and
objects without a controller, and follows the changes of the store. A `Controller` handles one key at a time in a
synchronous `sync`, which runs only when the index has seen every change of the store. It therefore never acts on a
stale view, needs no expectations and meets no conflicts. Between two keys it yields to the event loop, so that a burst
of work never blocks the loop for long. A failed `sync` is retried with a growing delay (5 ms doubling to 16 minutes, as
in client-go).
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]
Key = tuple[str, str]
ObjectReference = tuple[ResourceType, str, str]
WorkKey = TypeVar("WorkKey", bound=Hashable)

CONTROLLER_MANAGER = "kube-controller-manager"
_FIRST_RETRY_SECONDS = 0.005
_LONGEST_RETRY_SECONDS = 1000.0

log = logging.getLogger(__name__)


def key_of(obj: JsonObject) -> Key:
    """Returns the namespace (empty for cluster-scoped objects) and name."""
    metadata = obj["metadata"]
    return str(metadata.get("namespace", "")), str(metadata["name"])


def controller_of(obj: JsonObject) -> JsonObject | None:
    """Returns the owner reference marked as controller, or None."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def matches_selector(selector: JsonObject | None, labels: dict[str, str]) -> bool:
    """Returns whether a LabelSelector (matchLabels, matchExpressions) selects these labels. None selects nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or []:
        value, operator = labels.get(expression["key"]), expression["operator"]
        values = expression.get("values") or []
        satisfied = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }.get(operator, False)
        if not satisfied:
            return False
    return True


class ObjectIndex:
    """References to the store's objects by owner. `revision` is that of the newest change in the index."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._dependents: dict[str, dict[ObjectReference, None]] = {}
        self._orphans: dict[tuple[ResourceType, str], dict[Key, None]] = {}
        self._moved = asyncio.Condition()
        self.revision = 0
        self.rebuild()

    def rebuild(self) -> None:
        """Reads the whole store. Called at the start, because the store may have been loaded after construction."""
        self._dependents.clear()
        self._orphans.clear()
        for resource, obj in self._store.objects():
            self._add(resource, obj)
        self.revision = self._store.revision

    def dependents(self, owner_uid: str, resource: ResourceType | None = None) -> list[JsonObject]:
        """Returns the objects with an owner reference to this uid (of one type, or of all), as stored now."""
        found = (
            self._store.get(kind, namespace or None, name)
            for kind, namespace, name in self._dependents.get(owner_uid, ())
            if resource is None or kind is resource
        )
        return [obj for obj in found if obj is not None]

    def dependent_references(self, owner_uid: str) -> list[ObjectReference]:
        """Returns type, namespace and name of the objects with an owner reference to this uid."""
        return list(self._dependents.get(owner_uid, ()))

    def uncontrolled(self, resource: ResourceType, namespace: str) -> list[JsonObject]:
        """Returns the objects of one namespace that no controller owns, so that one may adopt them."""
        keys = self._orphans.get((resource, namespace), ())
        return [obj for key in keys if (obj := self._store.get(resource, *key)) is not None]

    def apply(self, event: StoreEvent) -> None:
        """Applies one change of the store to the index."""
        if event.previous is not None:
            self._drop(event.resource, event.previous)
        if event.type != "DELETED":
            self._add(event.resource, event.object)
        self.revision = event.resource_version

    async def announce(self) -> None:
        """Wakes the controllers that wait in `catch_up`."""
        async with self._moved:
            self._moved.notify_all()

    async def catch_up(self) -> None:
        """Waits until every change of the store is in the index."""
        if self.revision >= self._store.revision:
            return
        async with self._moved:
            await self._moved.wait_for(lambda: self.revision >= self._store.revision)

    def _add(self, resource: ResourceType, obj: JsonObject) -> None:
        namespace, name = key_of(obj)
        for reference in obj["metadata"].get("ownerReferences") or []:
            self._dependents.setdefault(reference["uid"], {})[resource, namespace, name] = None
        if controller_of(obj) is None:
            self._orphans.setdefault((resource, namespace), {})[namespace, name] = None

    def _drop(self, resource: ResourceType, obj: JsonObject) -> None:
        namespace, name = key_of(obj)
        for reference in obj["metadata"].get("ownerReferences") or []:
            entries = self._dependents.get(reference["uid"])
            if entries is not None:
                entries.pop((resource, namespace, name), None)
                if not entries:
                    del self._dependents[reference["uid"]]
        if controller_of(obj) is None and (orphans := self._orphans.get((resource, namespace))) is not None:
            orphans.pop((namespace, name), None)


class Controller(ABC, Generic[WorkKey]):
    """A work queue of keys and the loop that processes it."""

    def __init__(self, store: ObjectStore, clock: Clock, recorder: EventRecorder, index: ObjectIndex) -> None:
        self.store = store
        self.clock = clock
        self.recorder = recorder
        self.index = index
        self._queue: OrderedDict[WorkKey, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._failures: dict[WorkKey, int] = {}
        # Each timer with the loop time at which it is due, because not every loop's handle has that time.
        self._timers: dict[WorkKey, tuple[float, asyncio.Handle]] = {}

    @abstractmethod
    def observe(self, event: StoreEvent) -> None:
        """Enqueues the keys that a change affects. Must not write to the store."""

    @abstractmethod
    def sync(self, key: WorkKey) -> None:
        """Reconciles one key's objects with their specs. The index is current when this is called."""

    def enqueue(self, key: WorkKey, after: float = 0.0) -> None:
        """Requests a `sync` of this key after `after` simulated seconds. The earlier of two delayed requests wins."""
        if after > 0:
            loop = asyncio.get_running_loop()
            due = loop.time() + after / self.clock.speed
            pending = self._timers.get(key)
            if pending is not None:
                if pending[0] <= due:
                    return
                pending[1].cancel()
            self._timers[key] = due, loop.call_at(due, self._timer_fired, key)
            return
        self._queue[key] = None
        self._wake.set()

    def is_pending(self, key: WorkKey) -> bool:
        """Returns whether a `sync` of this key is due now."""
        return key in self._queue

    def seed(self) -> None:
        """Requests a `sync` for all objects that exist when the controller starts."""
        for resource, obj in self.store.objects():
            revision = self.store.revision
            self.observe(StoreEvent("ADDED", resource, obj, None, revision))

    async def run(self) -> None:
        """Processes the queue until cancelled."""
        try:
            while True:
                await self._wake.wait()
                while self._queue:
                    await self.index.catch_up()
                    key, _ = self._queue.popitem(last=False)
                    self._sync_one(key)
                    await asyncio.sleep(0)
                self._wake.clear()
        finally:
            for _due, timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _timer_fired(self, key: WorkKey) -> None:
        self._timers.pop(key, None)
        self.enqueue(key)

    def _sync_one(self, key: WorkKey) -> None:
        try:
            self.sync(key)
        except Exception as error:  # noqa: BLE001 - one bad object must not stop the controller for all others
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(_FIRST_RETRY_SECONDS * 2 ** (failures - 1), _LONGEST_RETRY_SECONDS)
            log.info("%s of %s failed, again in %g s: %s", type(self).__name__, key, delay, error)
            self.enqueue(key, after=delay)
        else:
            self._failures.pop(key, None)
