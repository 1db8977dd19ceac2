"""Tries a claim on the cluster by a dry run: the part of `validate_only` that needs the cluster.

The server-side dry run checks schema, admission, quota, and whether a bound claim may grow. If the namespace does not
exist on the cluster yet, nothing can be checked; that is not a refusal.
"""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.errors import InvalidArgument, Violation
from pilothouse_server.kubernetes import warnings
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.conditions import cluster_warnings
from pilothouse_server.kubernetes.dry_run import dry_run_deletion
from pilothouse_server.kubernetes.errors import NAME_TAKEN, Conflict, Forbidden, Invalid, NotFound
from pilothouse_server.storage.claims import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    claim,
    in_one_line,
    is_given_back,
    is_ours,
    lost,
    without_label,
)
from pilothouse_server.storage.model import Volume
from pilothouse_server.values.resources import ObjectWarning


async def check_on_cluster(connect: Connect, volume: Volume) -> tuple[ObjectWarning, ...]:
    """Tries a volume's claim, or its deletion if it is being deleted, on the cluster; changes nothing.

    Returns the warnings of the cluster. For other types it checks only that the namespace belongs to the platform.

    Raises as `tried`. Also raises FailedPrecondition if the class does not let the claim grow, or if somebody else has
    a claim of that name; InvalidArgument for a class that the cluster does not have.
    """
    if not volume.is_claim:
        await tried(connect, volume.namespace_ref, _nothing)
        return ()
    if volume.deletion_requested_at is None:
        classes = await tried(connect, volume.namespace_ref, lambda client: missing_class(client, volume))
        if classes is not None:
            raise _no_such_class(volume, classes)
    dry_run = dry_run_claim if volume.deletion_requested_at is None else dry_run_claim_deletion
    with warnings.noted() as collected:
        await tried(connect, volume.namespace_ref, lambda client: dry_run(client, volume))
    return cluster_warnings(collected)


async def _nothing(_client: ClusterClient) -> None:
    """Tries nothing: the volume is a part of pods."""


def _no_such_class(volume: Volume, classes: list[str]) -> InvalidArgument:
    field, there = "volume.storage_class", ", ".join(classes) or "none"
    words = f'cluster "{volume.cluster_name}" has no storage class "{volume.storage_class}"; it has {there}'
    return InvalidArgument(
        f"{field}: {words}",
        reason="STORAGE_CLASS_NOT_FOUND",
        metadata={"field": field, "cluster": volume.cluster_name, "storage_classes": ",".join(classes)},
        violations=(Violation(field, "exists", words),),
    )


async def dry_run_claim(client: ClusterClient, volume: Volume) -> None:
    """Tries the claim of a volume."""
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, volume.kubernetes_namespace, volume.kubernetes_name)
    if found is not None and not is_ours(volume, found):
        raise Conflict(
            f"PersistentVolumeClaim {volume.kubernetes_namespace}/{volume.kubernetes_name} exists and does not belong "
            "to this volume",
            status_reason=NAME_TAKEN,
        )
    if found is None and (volume.templated or lost(volume) is not None):
        # A lost claim is recreated only on request, and a claim from a template only by its StatefulSet.
        return
    try:
        await client.dry_run(PERSISTENT_VOLUME_CLAIMS, claim(volume, found), force=True)
    except NotFound:
        return
    except Invalid as refusal:
        raise in_one_line(refusal) from None


async def missing_class(client: ClusterClient, volume: Volume) -> list[str] | None:
    """Returns the cluster's storage classes if it lacks the volume's class; None if the claim may be created.

    A class used only by manually created PersistentVolumes need not exist. If the platform may not list classes, no
    class counts as missing.
    """
    if not volume.storage_class or volume.observed.claim_uid:
        return None
    try:
        classes = [each.metadata.name for each in (await client.list(STORAGE_CLASSES)).items]
        if volume.storage_class in classes:
            return None
        by_hand = (await client.list(PERSISTENT_VOLUMES)).items
    except (Forbidden, NotFound):
        return None
    if any(each.spec.storage_class_name == volume.storage_class for each in by_hand):
        return None
    return sorted(classes)


async def dry_run_claim_deletion(client: ClusterClient, volume: Volume) -> None:
    """Tries the deletion of a volume's claim; for a claim that was taken over, its release."""
    where = (volume.kubernetes_namespace, volume.kubernetes_name)
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, *where)
    if found is None or not is_ours(volume, found):
        return
    if is_given_back(volume, found):
        await client.merge_patch(PERSISTENT_VOLUME_CLAIMS, *where, without_label(found), dry_run=True)
    else:
        await dry_run_deletion(client, PERSISTENT_VOLUME_CLAIMS, found, "Background")
