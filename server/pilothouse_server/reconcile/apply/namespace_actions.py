"""What is done on a cluster to bring a namespace there, or to take it away.

A Kubernetes namespace is ours when it carries the uid of our namespace. One that is there without it belongs to
somebody: it is taken over only where that was asked for (`adopted`), and such a one is released at the end, not
deleted, because it was there before us.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.kubernetes import manifests
from pilothouse_server.kubernetes.errors import Conflict
from pilothouse_server.kubernetes.objects import NAMESPACES
from pilothouse_server.kubernetes.objects import Namespace as Object
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.reconcile.queue.leased_client import LeasedClient

# A namespace takes seconds to end.
AGAIN_SECONDS = 1.0


class Result(msgspec.Struct, frozen=True):
    """How far it came. `again_seconds`: the cluster is not done, look again. `gone`: nothing of it is left."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    again_seconds: float | None = None
    gone: bool = False


async def bring(client: LeasedClient, namespace: Namespace) -> Result:
    """Make the namespace be there. Raises ClusterError, among them Conflict `NameTaken`; LeaseLost."""
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is not None:
        if found.metadata.deletion_timestamp is not None:
            # Deleted behind our back: it must end before it can be made anew.
            return Result(
                phase="Terminating",
                reason="Terminating",
                message=_remaining(found),
                again_seconds=AGAIN_SECONDS,
            )
        if not _is_ours(namespace, found) and not namespace.adopted:
            raise Conflict(
                f"the Kubernetes namespace {namespace.kubernetes_name} exists and is not managed by Pilothouse; "
                "an administrator may take it over by asking for its adoption",
                status_reason="NameTaken",
            )
    applied = await client.apply(NAMESPACES, manifests.namespace(namespace), force=namespace.adopted)
    return Result(phase=applied.status.phase or "Active")


async def take_away(client: LeasedClient, namespace: Namespace) -> Result:
    """Delete or release the namespace; `gone` when that is done. Raises ClusterError, LeaseLost."""
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is None or not _is_ours(namespace, found):
        return Result(gone=True)
    if namespace.adopted:
        await client.apply(NAMESPACES, manifests.released_namespace(namespace))
        return Result(gone=True)
    if found.metadata.deletion_timestamp is None:
        await client.delete(
            NAMESPACES, None, namespace.kubernetes_name, uid=found.metadata.uid, propagation="Background"
        )
    return Result(
        phase="Terminating", reason="Terminating", message=_remaining(found), again_seconds=AGAIN_SECONDS
    )


def _is_ours(namespace: Namespace, found: Object) -> bool:
    return found.metadata.label(manifests.NAMESPACE_UID) == namespace.uid


def _remaining(found: Object) -> str:
    """The cluster's words for what keeps the namespace from ending."""
    return "; ".join(
        condition.message
        for condition in found.status.conditions
        if condition.status == "True" and condition.message
    )
