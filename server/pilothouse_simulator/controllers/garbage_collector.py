"""The garbage collector: deletes dependents when their owner is deleted.

The deletion chooses one of three policies. *Background*: the owner is removed immediately, and its dependents are
deleted when the collector finds that no owner is left. *Foreground*: the finalizer `foregroundDeletion` holds the owner
until every blocking dependent is deleted. Dependents that have dependents of their own are deleted in the foreground
too, so the order of removal is pods, replica set, deployment. *Orphan*: the finalizer `orphan` holds the owner until
the references to it are removed from its dependents.

An owner counts as present when an object of that kind, name and uid exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    ObjectReference,
    key_of,
)
from pilothouse_simulator.store.deletion import FOREGROUND_FINALIZER, ORPHAN_FINALIZER
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import NAMESPACES, ResourceType

JsonObject = dict[str, Any]

_REPORT_SECONDS = 0.002


class GarbageCollector(Controller[ObjectReference]):
    """Syncs objects of any type that have owners, or that wait for their dependents.

    `reporters` are the controllers that write the status of owners. An owner is released only after its reporter has
    recorded the deletion of the last dependent, so that watchers see the events in this order.
    """

    reporters: Mapping[ResourceType, Controller[Key]] = MappingProxyType({})

    def observe(self, event: StoreEvent) -> None:
        reference = _reference(event.resource, event.object)
        if event.type == "DELETED":
            for dependent in self.index.dependent_references(event.object["metadata"]["uid"]):
                self.enqueue(dependent)
            for owner in event.object["metadata"].get("ownerReferences") or []:
                self._enqueue_waiting(event.object, owner)
            return
        metadata = event.object["metadata"]
        before = event.previous["metadata"] if event.previous is not None else {}
        references_changed = metadata.get("ownerReferences") != before.get("ownerReferences")
        if _is_waiting(metadata) or (metadata.get("ownerReferences") and references_changed):
            self.enqueue(reference)
        for owner in before.get("ownerReferences") or []:
            if references_changed:
                self._enqueue_waiting(event.object, owner)

    def sync(self, key: ObjectReference) -> None:
        """Releases an owner whose dependents are deleted or orphaned, or deletes a dependent without owners."""
        resource, namespace, name = key
        obj = self.store.get(resource, namespace or None, name)
        if obj is None:
            return
        finalizers = obj["metadata"].get("finalizers") or []
        if "deletionTimestamp" in obj["metadata"]:
            if ORPHAN_FINALIZER in finalizers:
                self._orphan_dependents(resource, obj)
            elif FOREGROUND_FINALIZER in finalizers:
                self._delete_dependents(resource, obj)
            else:
                # The object is being deleted; its grace period or another finalizer holds it.
                return
        elif obj["metadata"].get("ownerReferences"):
            self._collect(resource, obj)

    def _collect(self, resource: ResourceType, obj: JsonObject) -> None:
        """Deletes an object if no owner is left; removes references to missing owners if others remain."""
        solid: list[JsonObject] = []
        waiting: list[JsonObject] = []
        for reference in obj["metadata"]["ownerReferences"]:
            owner = self._owner(obj, reference)
            if owner is None:
                continue
            metadata = owner["metadata"]
            foreground = FOREGROUND_FINALIZER in (metadata.get("finalizers") or [])
            if "deletionTimestamp" in metadata and foreground and reference.get("blockOwnerDeletion"):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if len(solid) < len(obj["metadata"]["ownerReferences"]):
                changed = copy_json(obj)
                changed["metadata"]["ownerReferences"] = solid
                self.store.update(resource, changed, manager=CONTROLLER_MANAGER)
            return
        has_dependents = bool(self.index.dependent_references(obj["metadata"]["uid"]))
        policy = "Foreground" if waiting and has_dependents else "Background"
        namespace, name = key_of(obj)
        self.store.delete(resource, namespace or None, name, propagation_policy=policy)

    def _delete_dependents(self, resource: ResourceType, owner: JsonObject) -> None:
        dependents = self.index.dependent_references(owner["metadata"]["uid"])
        blocking = False
        for dependent in dependents:
            obj = self.store.get(dependent[0], dependent[1] or None, dependent[2])
            if obj is None:
                continue
            self.enqueue(dependent)
            blocking |= any(
                reference["uid"] == owner["metadata"]["uid"] and reference.get("blockOwnerDeletion")
                for reference in obj["metadata"].get("ownerReferences") or []
            )
        if blocking:
            return
        reporter = self.reporters.get(resource)
        if reporter is not None and reporter.is_pending(key_of(owner)):
            self.enqueue(_reference(resource, owner), after=_REPORT_SECONDS)
        else:
            self._release(resource, owner, FOREGROUND_FINALIZER)

    def _orphan_dependents(self, resource: ResourceType, owner: JsonObject) -> None:
        uid = owner["metadata"]["uid"]
        for kind, namespace, name in self.index.dependent_references(uid):
            obj = self.store.get(kind, namespace or None, name)
            if obj is None:
                continue
            changed = copy_json(obj)
            references = [
                reference
                for reference in changed["metadata"].get("ownerReferences") or []
                if reference["uid"] != uid
            ]
            if references:
                changed["metadata"]["ownerReferences"] = references
            else:
                changed["metadata"].pop("ownerReferences", None)
            self.store.update(kind, changed, manager=CONTROLLER_MANAGER)
        self._release(resource, owner, ORPHAN_FINALIZER)

    def _release(self, resource: ResourceType, owner: JsonObject, finalizer: str) -> None:
        changed = copy_json(owner)
        remaining = [entry for entry in changed["metadata"]["finalizers"] if entry != finalizer]
        if remaining:
            changed["metadata"]["finalizers"] = remaining
        else:
            del changed["metadata"]["finalizers"]
        self.store.update(resource, changed, manager=CONTROLLER_MANAGER)

    def _owner(self, dependent: JsonObject, reference: JsonObject) -> JsonObject | None:
        resource = self.store.types.find_kind(reference["apiVersion"], reference["kind"])
        if resource is None:
            # This cluster does not serve the kind, so the owner may exist: keep the dependent.
            return {"metadata": {"uid": reference["uid"]}}
        namespace = dependent["metadata"].get("namespace") if resource.namespaced else None
        owner = self.store.get(resource, namespace, reference["name"])
        return owner if owner is not None and owner["metadata"]["uid"] == reference["uid"] else None

    def _enqueue_waiting(self, dependent: JsonObject, reference: JsonObject) -> None:
        owner = self._owner(dependent, reference)
        resource = self.store.types.find_kind(reference["apiVersion"], reference["kind"])
        if owner is not None and resource is not None and _is_waiting(owner["metadata"]):
            self.enqueue(_reference(resource, owner))


def _is_waiting(metadata: JsonObject) -> bool:
    finalizers = metadata.get("finalizers") or []
    return "deletionTimestamp" in metadata and (
        FOREGROUND_FINALIZER in finalizers or ORPHAN_FINALIZER in finalizers
    )


def _reference(resource: ResourceType, obj: JsonObject) -> ObjectReference:
    namespace, name = key_of(obj)
    return resource, "" if resource is NAMESPACES else namespace, name
