"""Asks the cluster for its response to a claim: the part of `validate_only` that needs it.

The server-side dry run checks schema, admission, quota, and whether a bound claim may grow. A namespace that is not on
the cluster yet cannot be checked, which is no refusal.
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
    """Have the volume's cluster try its claim out, or its deletion if it is being deleted, and change nothing.

    Returns the warnings of the cluster. Other types have nothing to try but that the namespace is ours.

    Raises as `tried`; FailedPrecondition also for a class that does not let the claim grow, or a claim of somebody else
    that has the name; InvalidArgument for a class that the cluster does not have.
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
    """The trial of a volume that is a part of pods."""


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
    """The claim of a volume."""
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, volume.kubernetes_namespace, volume.kubernetes_name)
    if found is not None and not is_ours(volume, found):
        raise Conflict(
            f"PersistentVolumeClaim {volume.kubernetes_namespace}/{volume.kubernetes_name} exists and does not belong "
            "to this volume",
            status_reason=NAME_TAKEN,
        )
    if found is None and (volume.templated or lost(volume) is not None):
        # It is not made again before a user requests that, or by its StatefulSet.
        return
    try:
        await client.dry_run(PERSISTENT_VOLUME_CLAIMS, claim(volume, found), force=True)
    except NotFound:
        return
    except Invalid as refusal:
        raise in_one_line(refusal) from None


async def missing_class(client: ClusterClient, volume: Volume) -> list[str] | None:
    """Returns the storage classes there are, where a claim names none of them; None where it may be made.

    A class that volumes made by hand carry need not be there. Where we may not look nothing is missing.
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
    """The deletion of the claim of a volume; of one that was taken over, that it is given back."""
    where = (volume.kubernetes_namespace, volume.kubernetes_name)
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, *where)
    if found is None or not is_ours(volume, found):
        return
    if is_given_back(volume, found):
        await client.merge_patch(PERSISTENT_VOLUME_CLAIMS, *where, without_label(found), dry_run=True)
    else:
        await dry_run_deletion(client, PERSISTENT_VOLUME_CLAIMS, found, "Background")
