"""The managers of fields: `metadata.managedFields`, which updates and server-side apply maintain.

Each manager (name, operation, subresource, version) owns a set of field paths. An update takes the fields that it
changes from all other managers. An apply states its whole intent: it becomes owner of the fields that it names, and
conflicts with other managers that own such a field with another value (unless forced). Fields that it named before and
no longer names are removed unless another manager owns them. The algorithm is that of Kubernetes'
structured-merge-diff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pilothouse_simulator.store.field_sets import (
    FieldSet,
    Path,
    compare,
    describe,
    field_set,
    from_fields_v1,
    merge,
    remove,
    to_fields_v1,
    with_named_containers,
)
from pilothouse_simulator.store.schema import Struct, schema_of
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ApiError, ErrorCause
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]

# Fields that no manager owns, in any object.
_UNMANAGED = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields",
            "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds",
        )
    }
)  # fmt: skip

# The owner of fields that existed before a manager was recorded.
_BEFORE_FIRST_APPLY = "before-first-apply"

# The serialised form of a new, empty object of a kind, with the fields that are present although nothing is set. The
# first writer does not "add" a container that is already present.
_EMPTY_TEMPLATE: JsonObject = {"metadata": {}, "spec": {"containers": None}}
_EMPTY_OBJECTS: dict[str, JsonObject] = {
    "Deployment": {"spec": {"selector": None, "strategy": {}, "template": _EMPTY_TEMPLATE}, "status": {}},
    "ReplicaSet": {"spec": {"selector": None, "template": _EMPTY_TEMPLATE}, "status": {"replicas": 0}},
    "StatefulSet": {"spec": {"selector": None, "template": _EMPTY_TEMPLATE}, "status": {"replicas": 0}},
    "Job": {"spec": {"template": _EMPTY_TEMPLATE}, "status": {}},
    "Pod": {"spec": {"containers": None}, "status": {}},
    "Service": {"spec": {}, "status": {"loadBalancer": {}}},
    "Namespace": {"spec": {}, "status": {}},
    "Node": {"spec": {}, "status": {}},
    "Event": {"involvedObject": {}, "source": {}},
    "EndpointSlice": {"endpoints": None, "ports": None},
    "Lease": {"spec": {}},
    "PersistentVolumeClaim": {"spec": {"resources": {}}, "status": {}},
}


class Manager(NamedTuple):
    """Identity of one entry of managedFields."""

    name: str
    operation: str
    subresource: str
    api_version: str

    def describe(self, api_version: str | None = None) -> str:
        """Returns the manager's name as in conflict messages; for updates with their version."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        if self.operation == "Update":
            text += f" using {api_version or self.api_version}"
        return text


@dataclass
class Ownership:
    """The fields that one manager owns, and when it last changed something."""

    fields: FieldSet
    time: str | None = None


class TrackedFields:
    """The managers of one object."""

    def __init__(self, entries: Sequence[JsonObject] | None) -> None:
        self.managers: dict[Manager, Ownership] = {}
        for entry in entries or ():
            if "manager" not in entry:
                continue
            manager = Manager(
                entry["manager"],
                entry["operation"],
                entry.get("subresource", ""),
                entry.get("apiVersion", ""),
            )
            self.managers[manager] = Ownership(from_fields_v1(entry.get("fieldsV1", {})), entry.get("time"))

    def encode(self) -> list[JsonObject]:
        """Returns the value of metadata.managedFields in the real server's order, without managers that own nothing."""
        entries = []
        ordered = sorted(
            self.managers.items(), key=lambda item: (item[0].operation, item[1].time or "", item[0])
        )
        for manager, ownership in ordered:
            if not ownership.fields:
                continue
            entry: JsonObject = {
                "manager": manager.name,
                "operation": manager.operation,
                "apiVersion": manager.api_version,
            }
            if ownership.time is not None:
                entry["time"] = ownership.time
            entry["fieldsType"] = "FieldsV1"
            entry["fieldsV1"] = to_fields_v1(ownership.fields)
            if manager.subresource:
                entry["subresource"] = manager.subresource
            entries.append(entry)
        return entries

    def all_fields(self) -> FieldSet:
        """Returns the fields of all managers."""
        owned: FieldSet = set()
        for ownership in self.managers.values():
            owned |= ownership.fields
        return owned


def store_managed_fields(obj: JsonObject, managed: TrackedFields) -> None:
    """Writes managedFields into the object; removes the key if no manager owns a field."""
    entries = managed.encode()
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _is_ignored(resource: ResourceType, subresource: str, path: Path) -> bool:
    if path in _UNMANAGED:
        return True
    if subresource == "status":
        return path[0] == "f:spec" or path[:2] == ("f:metadata", "f:labels")
    return path[0] == "f:status" and resource.has_status


def _entry_time(subresource: str, time: str) -> str | None:
    """Returns the time of an entry; None for the scale subresource, because the real server drops the time there."""
    return None if subresource == "scale" else time


def managed_part(resource: ResourceType, subresource: str, fields: FieldSet) -> FieldSet:
    """Returns the fields that a writer of this (sub)resource can own."""
    return {path for path in fields if not _is_ignored(resource, subresource, path)}


def _without_system_metadata(obj: JsonObject) -> JsonObject:
    metadata = {
        name: value
        for name, value in obj.get("metadata", {}).items()
        if ("f:metadata", f"f:{name}") not in _UNMANAGED
    }
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    return {"metadata": metadata, **rest}


class FieldTracker:
    """Keeps managedFields up to date for writes that are not applies."""

    def track_update(
        self,
        resource: ResourceType,
        before: JsonObject,
        after: JsonObject,
        manager: str,
        time: str,
        subresource: str = "",
    ) -> None:
        """Records in `after` that `manager` set the fields in which it differs from `before`.

        `before` is empty for a new object. The managers are read from `after`, because a client may change them. An
        object whose managedFields were cleared is not tracked until the next apply.
        """
        managed = _sent(before, after)
        if before and not managed.managers:
            after["metadata"].pop("managedFields", None)
            return
        schema = schema_of(resource)
        old = _without_system_metadata(before or _EMPTY_OBJECTS.get(resource.kind, {}))
        difference = compare(schema, old, _without_system_metadata(after))
        changed = managed_part(resource, subresource, difference.added | difference.modified)
        removed = managed_part(resource, subresource, difference.removed)
        if not changed and not removed:
            return
        for owner in managed.managers.values():
            owner.fields -= removed | changed
        if changed:
            key = Manager(manager, "Update", subresource, resource.api_version)
            own = managed.managers.setdefault(key, Ownership(set()))
            before_entry = TrackedFields(before.get("metadata", {}).get("managedFields")) if before else None
            previous = before_entry.managers.get(key) if before_entry else None
            own.fields |= changed | ((previous.fields - removed) if previous else set())
            own.time = _entry_time(subresource, time)
        store_managed_fields(after, managed)


def _sent(before: JsonObject, after: JsonObject) -> TrackedFields:
    """Returns the managers that a writer sent.

    If it sent none, returns the stored managers, unless it sent `[{}]`, which clears the list.
    """
    entries = after["metadata"].get("managedFields")
    sent = TrackedFields(entries)
    if sent.managers or entries == [{}] or not before:
        return sent
    return TrackedFields(before["metadata"].get("managedFields"))


def _managed_before(schema: Struct, resource: ResourceType, live: JsonObject, time: str) -> TrackedFields:
    """Returns the managers of a live object.

    If none is recorded, one manager owns all fields, as in the real server.
    """
    managed = TrackedFields(live.get("metadata", {}).get("managedFields"))
    if live and not managed.managers:
        empty = _without_system_metadata(_EMPTY_OBJECTS.get(resource.kind, {}))
        difference = compare(schema, empty, _without_system_metadata(live))
        fields = managed_part(resource, "", difference.added | difference.modified)
        key = Manager(_BEFORE_FIRST_APPLY, "Update", "", resource.api_version)
        managed.managers[key] = Ownership(fields, time)
    return managed


def apply_configuration(
    resource: ResourceType,
    live: JsonObject,
    configuration: JsonObject,
    *,
    manager: str,
    force: bool,
    time: str,
    subresource: str = "",
    message_version: str | None = None,
) -> JsonObject:
    """Merges an applied configuration into the live object and returns the new object.

    `live` is empty for a new object. `message_version` is the version that conflict messages show for updates. An apply
    that changes no value keeps the time of its manager. Raises ApiError 409 with one cause per conflicting field.
    """
    schema = schema_of(resource)
    managed = _managed_before(schema, resource, live, time)
    key = Manager(manager, "Apply", subresource, resource.api_version)
    previous = managed.managers.get(key)
    applied = _without_system_metadata(configuration)
    applied_fields = managed_part(resource, subresource, field_set(schema, applied))
    old = _without_system_metadata(live) if live else {"metadata": {}}
    merged = merge(schema, old, applied)
    managed.managers[key] = Ownership(applied_fields, previous.time if previous else None)
    if previous is not None and previous.fields:
        merged = _prune(schema, merged, managed, previous.fields)
    difference = compare(schema, old, merged)
    _resolve_conflicts(managed, key, difference.added | difference.modified, force, message_version)
    for owner, ownership in managed.managers.items():
        if owner != key:
            ownership.fields -= difference.removed
    if not difference.same or previous is None:
        managed.managers[key].time = _entry_time(subresource, time)
    result = {**merged, "metadata": {**copy_json(live.get("metadata", {}))}}
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        result["metadata"].pop(name, None)
    result["metadata"].update(merged.get("metadata", {}))
    for name in ("apiVersion", "kind"):
        result[name] = live.get(name, configuration.get(name))
    store_managed_fields(result, managed)
    return copy_json(result)


def _prune(schema: Struct, merged: JsonObject, managed: TrackedFields, last: FieldSet) -> JsonObject:
    """Removes the fields that this manager applied before and that no manager owns any more."""
    present = field_set(schema, merged, named_containers=True)
    owned = with_named_containers(schema, managed.all_fields())
    gone = (with_named_containers(schema, last) & present) - owned
    pruned: JsonObject = remove(schema, merged, gone)
    return pruned


def _resolve_conflicts(
    managed: TrackedFields, applier: Manager, changed: FieldSet, force: bool, message_version: str | None
) -> None:
    conflicts: list[tuple[Manager, Path]] = []
    for owner in sorted(managed.managers):
        if owner == applier:
            continue
        taken = managed.managers[owner].fields & changed
        conflicts.extend((owner, path) for path in sorted(taken, key=_members_first))
        if force:
            managed.managers[owner].fields -= taken
    if conflicts and not force:
        raise _conflict_error(conflicts, message_version)


def _members_first(path: Path) -> list[tuple[bool, str]]:
    """Returns the sort key for the real server's order of a set: members of a level before deeper ones."""
    last = len(path) - 1
    return [(depth < last, element) for depth, element in enumerate(path)]


def _conflict_error(conflicts: list[tuple[Manager, Path]], message_version: str | None) -> ApiError:
    described = [(owner.describe(message_version), describe(path)) for owner, path in conflicts]
    causes = [ErrorCause("FieldManagerConflict", f"conflict with {owner}", path) for owner, path in described]
    if len(described) == 1:
        owner, path = described[0]
        return api_errors.apply_conflict(
            causes, f"Apply failed with 1 conflict: conflict with {owner}: {path}"
        )
    lines: list[str] = []
    for owner in sorted({owner for owner, _ in described}):
        lines.append(f"conflicts with {owner}:")
        lines.extend(f"- {path}" for other, path in described if other == owner)
    return api_errors.apply_conflict(
        causes, f"Apply failed with {len(described)} conflicts: " + "\n".join(lines)
    )
