"""Builds the Kubernetes object of a carried object, and checks whether an object belongs to it: pure functions."""

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
    """Returns the object as it is applied, with the caller's labels and the platform's.

    An object that was taken over gets only the label by which the platform finds it. It lacks the namespace's uid so
    that the sweep does not delete it: a database restored from before the import does not know the object. A
    `managed-by` label of the caller stays.
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
    """Returns whether an object on the cluster belongs to a carried one.

    It does if its label has the carried object's uid, if it is a ServiceAccount that the platform created for a
    container, or if it is the object taken over and has no label of the platform yet.
    """
    if label := found.metadata.label(OBJECT_UID):
        return label == carried.uid
    if carried.kind == "ServiceAccount" and _is_of_containers(carried, found):
        return True
    nobodys = not any(key.startswith(f"{DOMAIN}/") for key in found.metadata.labels or ())
    return nobodys and bool(carried.taken_over) and found.metadata.uid == carried.taken_over


def _is_of_containers(carried: CarriedObject, found: KubernetesObject) -> bool:
    """Returns whether the platform created a service account because a container of the namespace names it."""
    metadata = found.metadata
    return (metadata.label(MANAGED_BY), metadata.label(NAMESPACE_UID)) == (MANAGER, carried.namespace_uid)


def check_ours(carried: CarriedObject, found: AnyObject | None) -> None:
    """Raises Conflict `NameTaken` if the object belongs to somebody else."""
    if found is None or is_ours(carried, found):
        return
    where = f"{carried.kubernetes_namespace}/{carried.name}"
    raise Conflict(
        f"{carried.kind} {where} exists and does not belong to this object", status_reason=NAME_TAKEN
    )
