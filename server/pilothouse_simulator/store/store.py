"""In-memory multi-version object store of the simulated cluster, in place of etcd and the registry layer.

One revision counter numbers every change in the whole cluster; an object's `metadata.resourceVersion` is the revision
of its last change. Every change is stored as a `StoreEvent` with the object before and after it, in a history of
bounded length. The history serves watches that resume from an older version, and lists of a past version (paging from
one snapshot). Subscribers inside the process (controllers) get each change. Older changes are compacted, and a request
for them is refused with `Expired`, as in the real server.

All methods are synchronous and run on one event loop, so each call is atomic. Returned objects are shared: never change
them, copy them first. The store gets the rules of each kind (defaults, validation, fields that a client may change) as
a `Strategy` and calls them at each write, so controllers and HTTP clients get the same behaviour.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from pilothouse_simulator.store.deletion import (
    apply_propagation,
    check_preconditions,
    grace_seconds,
    mark_deleted,
)
from pilothouse_simulator.store.events import StoreEvent, Subscription, WatchHistory
from pilothouse_simulator.store.field_tracking import FieldTracker
from pilothouse_simulator.store.object_metadata import (
    keep_system_metadata,
    name_object,
    raises_generation,
    same_content,
)
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.json_copy import copy_json, share_unchanged
from pilothouse_simulator.values.resources import NAMESPACES, PODS, ResourceType, ResourceTypes

JsonObject = dict[str, Any]
ObjectList = list[JsonObject]
Key = tuple[str, str]

HISTORY_LENGTH = 10_000


class Strategy(Protocol):
    """The store's interface to the rules of each kind. The rules may read the store, and update the quotas in it."""

    def default(self, resource: ResourceType, obj: JsonObject) -> None:
        """Fills defaults in place; they count as set by the writer."""

    def prepare_for_create(self, store: ObjectStore, resource: ResourceType, obj: JsonObject) -> None:
        """Sets the initial fields of a new object in place, and checks it. Raises ApiError."""

    def prepare_for_update(self, resource: ResourceType, obj: JsonObject, old: JsonObject) -> None:
        """Restores in place the fields that an update must not change, and checks the rest. Raises ApiError."""

    def prepare_status_update(self, resource: ResourceType, obj: JsonObject, sent: JsonObject) -> None:
        """Copies from `sent` the other fields that a status update also writes."""

    def allocate(
        self,
        store: ObjectStore,
        resource: ResourceType,
        obj: JsonObject,
        old: JsonObject | None,
        *,
        dry_run: bool,
    ) -> None:
        """Runs admission, and allocates limited resources. Raises ApiError."""

    def release(self, resource: ResourceType, obj: JsonObject) -> None:
        """Releases the allocations of `allocate`."""

    def restore_allocations(self, resource: ResourceType, obj: JsonObject) -> None:
        """Marks the allocations of a loaded object as taken."""


class ObjectStore:
    """The objects of the cluster, written under the rules of `strategy`.

    `now` is the clock for creation, deletion and managedFields times (UTC). `types` are the resource types that it may
    contain. `listeners` are called with each change before its writer continues; subscribers are notified later.
    """

    def __init__(
        self,
        strategy: Strategy,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._strategy = strategy
        self.now: Callable[[], datetime] = now or (lambda: datetime.now(UTC))
        self.types = ResourceTypes()
        self.revision = 1
        self.tracker = FieldTracker()
        self.history = WatchHistory(HISTORY_LENGTH)
        self._objects: dict[ResourceType, dict[str, dict[str, JsonObject]]] = {}
        self.listeners: list[Callable[[StoreEvent], None]] = []
        self._subscriptions: set[Subscription] = set()

    # Reading

    def get(self, resource: ResourceType, namespace: str | None, name: str) -> JsonObject | None:
        """Returns the object, or None. Treat it as immutable."""
        return self._objects.get(resource, {}).get(namespace or "", {}).get(name)

    def list(self, resource: ResourceType, namespace: str | None = None) -> ObjectList:
        """Returns all objects of the type, in one namespace or in all, sorted by namespace and name."""
        by_namespace = self._objects.get(resource, {})
        spaces = sorted(by_namespace) if namespace is None else [namespace]
        return [
            item for space in spaces for _, item in sorted(by_namespace.get(space, {}).items(), key=_by_name)
        ]

    def list_at(self, resource: ResourceType, namespace: str | None, revision: int) -> ObjectList:
        """Returns the list as it was at `revision`. Raises 410 for a compacted revision."""
        items = {_key(item): item for item in self.list(resource, namespace)}
        for event in self.history.undo(resource, revision):
            key = _key(event.object)
            if namespace is not None and key[0] != namespace:
                continue
            if event.previous is None:
                items.pop(key, None)
            else:
                items[key] = event.previous
        return [items[key] for key in sorted(items)]

    def objects(self) -> Iterator[tuple[ResourceType, JsonObject]]:
        """Yields every object of every type (for persistence and garbage collection)."""
        for resource, by_namespace in self._objects.items():
            for by_name in by_namespace.values():
                for item in by_name.values():
                    yield resource, item

    # Writing

    def create(
        self, resource: ResourceType, obj: JsonObject, *, manager: str | None = None, dry_run: bool = False
    ) -> JsonObject:
        """Stores a new object: defaults it, checks it, sets uid, creationTimestamp and resourceVersion.

        `manager` is recorded as the manager of the fields (managedFields). Errors: already_exists, invalid, forbidden
        (namespace terminating), not_found (namespace missing).
        """
        obj = copy_json(obj)
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        metadata = obj.setdefault("metadata", {})
        name_object(metadata)
        for field in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "selfLink",
                      "deletionGracePeriodSeconds"):  # fmt: skip
            metadata.pop(field, None)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = format_time(self.now())
        if resource.has_generation:
            metadata["generation"] = 1
        else:
            metadata.pop("generation", None)
        name = str(metadata.get("name", ""))
        namespace = str(metadata.get("namespace", "")) if resource.namespaced else ""
        if namespace:
            self._check_namespace(resource, namespace, name)
        self._strategy.default(resource, obj)
        if manager is not None:
            self.tracker.track_update(resource, {}, obj, manager, format_time(self.now()))
        self._strategy.prepare_for_create(self, resource, obj)
        existing = self.get(resource, namespace, name)
        if existing is not None:
            deleted = bool(existing["metadata"].get("deletionTimestamp"))
            raise api_errors.already_exists(resource, name, being_deleted=deleted)
        self._strategy.allocate(self, resource, obj, None, dry_run=dry_run)
        if dry_run:
            return obj
        self._commit("ADDED", resource, obj, None)
        return obj

    def update(
        self,
        resource: ResourceType,
        obj: JsonObject,
        *,
        manager: str | None = None,
        dry_run: bool = False,
        subresource: str = "",
    ) -> JsonObject:
        """Replaces an object except its status, and returns the stored one.

        A `metadata.resourceVersion` or `metadata.uid` in `obj` must match (conflict otherwise). Unchanged content keeps
        the resourceVersion and sends no event. The generation is incremented if the kind's rules require it. Removing
        the last finalizer of an object that is being deleted removes the object.
        """
        current, changed = self._merge_over_current(resource, obj)
        if resource.has_status and "status" in current:
            changed["status"] = current["status"]
        elif resource.has_status:
            changed.pop("status", None)
        self._strategy.default(resource, changed)
        if manager is not None:
            time = format_time(self.now())
            self.tracker.track_update(resource, current, changed, manager, time, subresource)
        self._strategy.prepare_for_update(resource, changed, current)
        self._strategy.allocate(self, resource, changed, current, dry_run=dry_run)
        if resource.has_generation and raises_generation(resource, changed, current):
            changed["metadata"]["generation"] = int(current["metadata"].get("generation", 0)) + 1
        return self._finish_update(resource, changed, current, dry_run)

    def update_status(
        self, resource: ResourceType, obj: JsonObject, manager: str | None, *, dry_run: bool = False
    ) -> JsonObject:
        """Replaces only the status, and records `manager` for it (subresource status; None: as sent)."""
        current, sent = self._merge_over_current(resource, obj)
        changed = copy_json(current)
        changed["status"] = sent.get("status", {})
        if "managedFields" in sent["metadata"]:
            changed["metadata"]["managedFields"] = sent["metadata"]["managedFields"]
        self._strategy.prepare_status_update(resource, changed, sent)
        if manager is not None:
            time = format_time(self.now())
            self.tracker.track_update(resource, current, changed, manager, time, "status")
        return self._finish_update(resource, changed, current, dry_run)

    def replace(self, resource: ResourceType, obj: JsonObject, *, dry_run: bool = False) -> JsonObject:
        """Replaces the whole object as given, without the rules for clients (no generation, no tracking).

        For internal writes (finalize, eviction, namespace conditions, quotas). Conflicts as in `update`.
        """
        current, changed = self._merge_over_current(resource, obj)
        return self._finish_update(resource, changed, current, dry_run)

    def bind(self, namespace: str, name: str, node_name: str) -> JsonObject:
        """Assigns a pod to a node, as POST of a Binding does: nodeName and the condition PodScheduled."""
        pod = self.get(PODS, namespace, name)
        if pod is None:
            raise api_errors.not_found(PODS, name)
        if pod["spec"].get("nodeName"):
            raise api_errors.conflict(PODS, name, f"pod {name} is already assigned to node")
        pod = copy_json(pod)
        pod["spec"]["nodeName"] = node_name
        conditions = [
            entry for entry in pod["status"].get("conditions", []) if entry["type"] != "PodScheduled"
        ]
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None,
                     "lastTransitionTime": format_time(self.now())}  # fmt: skip
        pod["status"]["conditions"] = [*conditions, scheduled]
        return self.replace(PODS, pod)

    def delete(
        self,
        resource: ResourceType,
        namespace: str | None,
        name: str,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
        preconditions: JsonObject | None = None,
        dry_run: bool = False,
    ) -> JsonObject | None:
        """Deletes with Kubernetes semantics and returns the remaining object.

        The object has a deletionTimestamp while finalizers or a grace period hold it; None means that it is removed. A
        pod is marked before its removal even if nothing holds it, and its last state is returned. Errors: not_found,
        conflict.
        """
        current = self.get(resource, namespace, name)
        if current is None:
            raise api_errors.not_found(resource, name)
        check_preconditions(resource, current, preconditions or {})
        changed = copy_json(current)
        apply_propagation(resource, changed["metadata"], propagation_policy)
        grace = grace_seconds(resource, changed, grace_period_seconds)
        finalizers = _finalizers(resource, changed)
        if not finalizers and not resource.graceful_deletion:
            if not dry_run:
                self._remove(resource, current)
            return None
        mark_deleted(resource, changed, self.now(), grace)
        if dry_run:
            return changed
        if changed != current:
            self._commit("MODIFIED", resource, changed, current)
        if not finalizers and grace == 0:
            self._remove(resource, changed)
            return changed if resource.graceful_deletion else None
        return changed

    def remove(self, resource: ResourceType, namespace: str | None, name: str) -> None:
        """Removes an object, even if finalizers or a grace period hold it. The object need not exist."""
        current = self.get(resource, namespace, name)
        if current is not None:
            self._remove(resource, current)

    def subscribe(self, resource: ResourceType | None = None) -> Subscription:
        """Returns a subscription to all changes from now on (of one type, or of all)."""
        subscription = Subscription(resource, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    def restore(self, revision: int, objects: Iterable[tuple[ResourceType, JsonObject]]) -> None:
        """Replaces all objects by a saved state; its history counts as compacted."""
        self._objects.clear()
        for resource, obj in objects:
            self._put(resource, obj)
            self._strategy.restore_allocations(resource, obj)
        self.revision = revision
        self.history.compact(revision)

    # Internals

    def _merge_over_current(self, resource: ResourceType, obj: JsonObject) -> tuple[JsonObject, JsonObject]:
        sent = obj.get("metadata", {})
        namespace = str(sent.get("namespace", "")) if resource.namespaced else ""
        name = str(sent.get("name", ""))
        current = self.get(resource, namespace, name)
        if current is None:
            raise api_errors.not_found(resource, name)
        stored = current["metadata"]
        uid, version = sent.get("uid"), sent.get("resourceVersion")
        if uid and uid != stored["uid"]:
            path = f"/registry/{resource.plural}/{namespace + '/' if namespace else ''}{name}"
            raise api_errors.conflict(
                resource,
                name,
                f"StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: "
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {stored['uid']}",
            )
        if version and version != stored["resourceVersion"]:
            raise api_errors.conflict(resource, name)
        if not version and not resource.unconditional_update:
            raise api_errors.version_required(resource, name)
        changed = copy_json(obj)
        changed.setdefault("apiVersion", resource.api_version)
        changed.setdefault("kind", resource.kind)
        keep_system_metadata(changed["metadata"], stored)
        return current, changed

    def _finish_update(
        self, resource: ResourceType, changed: JsonObject, current: JsonObject, dry_run: bool
    ) -> JsonObject:
        if same_content(changed, current):
            return current
        metadata = changed["metadata"]
        released = (
            "deletionTimestamp" in metadata
            and not _finalizers(resource, changed)
            and not metadata.get("deletionGracePeriodSeconds")
        )
        if dry_run:
            return changed
        if released:
            self._remove(resource, current)
            return changed
        self._commit("MODIFIED", resource, changed, current)
        return changed

    def _check_namespace(self, resource: ResourceType, namespace: str, name: str) -> None:
        parent = self.get(NAMESPACES, None, namespace)
        if parent is None:
            raise api_errors.not_found(NAMESPACES, namespace)
        if parent["metadata"].get("deletionTimestamp"):
            cause = ErrorCause(
                "NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace"
            )
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise api_errors.forbidden(resource, name, message, [cause])

    def _commit(
        self,
        kind: Literal["ADDED", "MODIFIED"],
        resource: ResourceType,
        obj: JsonObject,
        previous: JsonObject | None,
    ) -> None:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        if previous is not None:
            share_unchanged(obj, previous)
        self._put(resource, obj)
        self._record(StoreEvent(kind, resource, obj, previous, self.revision))

    def _remove(self, resource: ResourceType, last: JsonObject) -> None:
        """Removes an object; the DELETED event has the object as last stored, also if an update removed it."""
        namespace, name = _key(last)
        del self._objects[resource][namespace][name]
        self._strategy.release(resource, last)
        self.revision += 1
        gone = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.revision)}}
        self._record(StoreEvent("DELETED", resource, gone, last, self.revision))

    def _put(self, resource: ResourceType, obj: JsonObject) -> None:
        namespace, name = _key(obj)
        self._objects.setdefault(resource, {}).setdefault(namespace, {})[name] = obj

    def _record(self, event: StoreEvent) -> None:
        self.history.add(event)
        for listen in self.listeners:
            listen(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)


def _key(obj: JsonObject) -> Key:
    metadata = obj["metadata"]
    return str(metadata.get("namespace", "")), str(metadata["name"])


def _finalizers(resource: ResourceType, obj: JsonObject) -> list[str]:
    """Returns the finalizers of an object that is being deleted; for a namespace without any, those of its spec."""
    held = obj["metadata"].get("finalizers")
    if not held and resource is NAMESPACES:
        held = obj.get("spec", {}).get("finalizers")
    return held or []


def _by_name(entry: tuple[str, JsonObject]) -> str:
    return entry[0]
