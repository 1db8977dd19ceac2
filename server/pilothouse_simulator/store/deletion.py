"""Deletion rules of the store: preconditions, propagation finalizers and grace periods.

Pure functions on one object; `ObjectStore.delete` combines them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, ResourceType

JsonObject = dict[str, Any]

FOREGROUND_FINALIZER = "foregroundDeletion"
ORPHAN_FINALIZER = "orphan"
# Holds a CustomResourceDefinition until its objects are deleted.
CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


def check_preconditions(resource: ResourceType, current: JsonObject, preconditions: JsonObject) -> None:
    """Raises 409 if the uid or resourceVersion differs from the one in the preconditions."""
    metadata = current["metadata"]
    for field, label, consequence in (
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ):
        wanted = preconditions.get(field)
        if wanted is not None and wanted != metadata[field]:
            raise api_errors.precondition_failed(
                resource,
                metadata["name"],
                f"the {label} in the precondition ({wanted}) does not match the {label} in record "
                f"({metadata[field]}). The object might have been {consequence}",
            )


def apply_propagation(resource: ResourceType, metadata: JsonObject, policy: str | None) -> None:
    """Sets the finalizer that the policy requires. Background, or no policy, adds none."""
    finalizers = list(metadata.get("finalizers") or [])
    wanted = {"Foreground": FOREGROUND_FINALIZER, "Orphan": ORPHAN_FINALIZER}.get(policy or "")
    if policy is not None and resource is not NAMESPACES:
        finalizers = [entry for entry in finalizers if entry not in (FOREGROUND_FINALIZER, ORPHAN_FINALIZER)]
    if wanted and resource is not NAMESPACES:
        finalizers.append(wanted)
    if resource is CUSTOM_RESOURCE_DEFINITIONS and "deletionTimestamp" not in metadata:
        finalizers = [entry for entry in finalizers if entry != CLEANUP_FINALIZER] + [CLEANUP_FINALIZER]
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def grace_seconds(resource: ResourceType, obj: JsonObject, requested: int | None) -> int:
    """Returns the grace period in seconds that applies now; a later request can only shorten it."""
    if not resource.graceful_deletion:
        return 0
    if not obj["spec"].get("nodeName") or obj.get("status", {}).get("phase") in _TERMINAL_PHASES:
        # The pod runs on no node, so there is nothing to wait for.
        current = obj["metadata"].get("deletionGracePeriodSeconds")
        return 0 if not current or requested is None else min(int(current), requested)
    already = obj["metadata"].get("deletionGracePeriodSeconds")
    if requested is None:
        default = obj["spec"].get("terminationGracePeriodSeconds", 30)
        requested = int(already if already is not None else default)
    return requested if already is None else min(requested, int(already))


def mark_deleted(resource: ResourceType, obj: JsonObject, now: datetime, grace: int) -> None:
    """Sets the deletion time of the object, `grace` seconds from now, or shortens it."""
    metadata = obj["metadata"]
    deleting = "deletionTimestamp" in metadata
    if resource is CUSTOM_RESOURCE_DEFINITIONS:
        if not deleting:
            metadata["deletionTimestamp"] = format_time(now)
            obj["status"]["conditions"] = [*(obj["status"].get("conditions") or []), _terminating(now)]
        return
    shortened = deleting and grace < int(metadata.get("deletionGracePeriodSeconds") or 0)
    if not deleting or shortened:
        if not deleting and resource.has_generation:
            metadata["generation"] = int(metadata.get("generation", 0)) + 1
        metadata["deletionTimestamp"] = format_time(now + timedelta(seconds=grace))
        if resource is not NAMESPACES:
            metadata["deletionGracePeriodSeconds"] = grace
    if resource is NAMESPACES:
        obj.setdefault("status", {})["phase"] = "Terminating"


def _terminating(now: datetime) -> JsonObject:
    return {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": format_time(now),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    }
