"""Asks a claim's cluster what it would say to it: the part of `validate_only` that only the cluster can answer.

The server-side dry run checks schema, admission, quota, and whether a bound claim may grow. A namespace that is not on
the cluster yet cannot be asked about: that is no refusal.
"""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.errors import InvalidArgument, Violation
from pilothouse_server.kubernetes.dry_run import dry_run_claim, dry_run_claim_deletion, missing_class
from pilothouse_server.storage.model import Volume


async def check_on_cluster(connect: Connect, volume: Volume) -> None:
    """Have the volume's cluster try its claim out, or its deletion if it is being deleted, and change nothing.

    Other types have nothing to try. Raises as `tried`; FailedPrecondition also for a class that does not let the claim
    grow, or a claim of somebody else that has the name; InvalidArgument for a class that the cluster does not have.
    """
    if not volume.is_claim:
        return
    if volume.deletion_requested_at is None:
        classes = await tried(connect, volume.cluster_name, lambda client: missing_class(client, volume))
        if classes is not None:
            raise _no_such_class(volume, classes)
    dry_run = dry_run_claim if volume.deletion_requested_at is None else dry_run_claim_deletion
    await tried(connect, volume.cluster_name, lambda client: dry_run(client, volume))


def _no_such_class(volume: Volume, classes: list[str]) -> InvalidArgument:
    field, there = "volume.storage_class", ", ".join(classes) or "none"
    words = f'cluster "{volume.cluster_name}" has no storage class "{volume.storage_class}"; it has {there}'
    return InvalidArgument(
        f"{field}: {words}",
        reason="STORAGE_CLASS_NOT_FOUND",
        metadata={"field": field, "cluster": volume.cluster_name, "storage_classes": ",".join(classes)},
        violations=(Violation(field, "exists", words),),
    )
