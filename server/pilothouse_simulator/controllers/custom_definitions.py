"""The controller of CustomResourceDefinitions: serves their kinds, and removes the objects of deleted definitions.

Conditions and their order are those of recording 31. A definition is established as soon as the controller sees it (the
recorded server took half a second). Deleting a definition deletes its objects and ends their watches; only then does
the controller remove the finalizer of the definition. Until then the kind is served.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.conditions import with_conditions
from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER, Controller, ObjectIndex
from pilothouse_simulator.store.custom_types import serve
from pilothouse_simulator.store.deletion import CLEANUP_FINALIZER
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock, format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CUSTOM_RESOURCE_DEFINITIONS, ResourceType

JsonObject = dict[str, Any]

_APPROVAL = "api-approved.kubernetes.io"
_MANAGER = "kube-apiserver"
_NEXT_LOOK_SECONDS = 0.5


class CustomDefinitionController(Controller[str]):
    """Syncs CustomResourceDefinitions; the key is their name."""

    def __init__(self, store: ObjectStore, clock: Clock, recorder: EventRecorder, index: ObjectIndex) -> None:
        super().__init__(store, clock, recorder, index)
        self._served: dict[str, JsonObject] = {}

    def observe(self, event: StoreEvent) -> None:
        if event.resource is CUSTOM_RESOURCE_DEFINITIONS:
            self.enqueue(event.object["metadata"]["name"])

    def sync(self, key: str) -> None:
        """Serves the kind of one definition, or stops serving it."""
        definition = self.store.get(CUSTOM_RESOURCE_DEFINITIONS, None, key)
        if definition is None:
            return
        spec = definition["spec"]
        if "deletionTimestamp" in definition["metadata"]:
            resource = self.store.types.custom(spec["group"], spec["names"]["plural"])
            if resource is None or self._is_empty(resource):
                self._release(definition, resource)
            else:
                self.enqueue(key, after=_NEXT_LOOK_SECONDS)
            return
        if self._served.get(key) != spec:
            self._served[key] = spec
            serve(self.store.types, definition)
        self._establish(definition)

    def _establish(self, definition: JsonObject) -> None:
        names = definition["spec"]["names"]
        conditions = [
            _condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            _condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]
        approval = (definition["metadata"].get("annotations") or {}).get(_APPROVAL)
        if approval is not None and definition["spec"]["group"].endswith(".k8s.io"):
            text = f"approved in {approval}"
            conditions.append(_condition("KubernetesAPIApprovalPolicyConformant", "ApprovedAnnotation", text))
        before = definition.get("status") or {}
        status = {
            "conditions": with_conditions(
                before.get("conditions"), conditions, format_time(self.clock.now())
            ),
            "acceptedNames": names,
            "storedVersions": before.get("storedVersions") or [],
        }
        if status != before:
            self.store.update_status(CUSTOM_RESOURCE_DEFINITIONS, {**definition, "status": status}, _MANAGER)

    def _is_empty(self, resource: ResourceType) -> bool:
        """Deletes the objects of a kind; returns whether none is left."""
        for obj in self.store.list(resource):
            metadata = obj["metadata"]
            if "deletionTimestamp" not in metadata:
                self.store.delete(resource, metadata.get("namespace"), metadata["name"])
        return not self.store.list(resource)

    def _release(self, definition: JsonObject, resource: ResourceType | None) -> None:
        if resource is not None:
            self.store.types.remove(resource)
        self._served.pop(definition["metadata"]["name"], None)
        changed = copy_json(definition)
        changed["metadata"]["finalizers"] = [
            entry for entry in changed["metadata"].get("finalizers") or [] if entry != CLEANUP_FINALIZER
        ]
        self.store.update(CUSTOM_RESOURCE_DEFINITIONS, changed, manager=CONTROLLER_MANAGER)


def _condition(kind: str, reason: str, message: str) -> JsonObject:
    return {"type": kind, "status": "True", "reason": reason, "message": message}
