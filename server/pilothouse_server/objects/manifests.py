"""From a carried object to its Kubernetes object, and whether an object is this one's: pure functions."""

from __future__ import annotations

from typing import Final

from pilothouse_server.kubernetes.errors import NAME_TAKEN, Conflict
from pilothouse_server.kubernetes.objects import AnyObject, KubernetesObject, Manifest
from pilothouse_server.kubernetes.ownership import (
    DOMAIN,
    MANAGED_BY,
    MANAGER,
    NAMESPACE,
    NAMESPACE_UID,
    OBJECT_UID,
    label_value,
)
from pilothouse_server.objects import documents
from pilothouse_server.objects.model import CarriedObject

OURS: Final = frozenset({NAMESPACE, NAMESPACE_UID, OBJECT_UID})


def manifest(carried: CarriedObject) -> Manifest:
    """Returns the object as it is applied, with the caller's labels and ours.

    One that was taken over carries only the label by which we find it. Without the namespace's uid the sweep leaves it
    alone: a database restored from before the import does not know it. A `managed-by` of the caller's stays.
    """
    document = documents.manifest(carried)
    ours = {NAMESPACE: label_value(carried.namespace), NAMESPACE_UID: carried.namespace_uid}
    ours = {} if carried.taken_over else {MANAGED_BY: MANAGER, **carried.labels, **ours}
    document["metadata"] = {
        **document["metadata"],
        "namespace": carried.kubernetes_namespace,
        "labels": {**carried.labels, **ours, OBJECT_UID: carried.uid},
    }
    return document


def is_ours(carried: CarriedObject, found: KubernetesObject) -> bool:
    """Returns whether an object is this one's: it says so, or is the one taken over and is nobody's yet."""
    if label := found.metadata.label(OBJECT_UID):
        return label == carried.uid
    if carried.kind == "ServiceAccount" and _is_of_containers(carried, found):
        return True
    nobodys = not any(key.startswith(f"{DOMAIN}/") for key in found.metadata.labels or ())
    return nobodys and bool(carried.taken_over) and found.metadata.uid == carried.taken_over


def _is_of_containers(carried: CarriedObject, found: KubernetesObject) -> bool:
    """Returns whether the platform made a service account of the namespace because a container names it."""
    metadata = found.metadata
    return (metadata.label(MANAGED_BY), metadata.label(NAMESPACE_UID)) == (MANAGER, carried.namespace_uid)


def check_ours(carried: CarriedObject, found: AnyObject | None) -> None:
    """Raises Conflict `NameTaken` if the object is somebody else's."""
    if found is None or is_ours(carried, found):
        return
    where = f"{carried.kubernetes_namespace}/{carried.name}"
    raise Conflict(
        f"{carried.kind} {where} exists and does not belong to this object", status_reason=NAME_TAKEN
    )
