"""The end of a cluster, and of its namespaces.

A cluster without namespaces is removed immediately. With namespaces the call is refused, unless the caller has chosen:

  * ORPHAN: all its rows are removed here, in one transaction, and its objects stay on the cluster. It must be one
    transaction: if a container were marked for deletion first, or removed before its namespace, the reconciler or its
    sweep would delete objects that should stay.
  * DELETE: its namespaces are marked for deletion, as DeleteNamespace does. The reconciler deletes them from the
    cluster; when the last namespace is deleted, the cluster is removed (`finish`). A cluster that never responds again
    may be ORPHANed instead.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pilothouse_server.clusters import repository
from pilothouse_server.clusters.model import Cluster
from pilothouse_server.clusters.operations import registration
from pilothouse_server.clusters.operations.registration import Check
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

Objects = Literal["refuse", "orphan", "delete"]


class ClusterContents(Protocol):
    """The namespaces on a cluster, with all their resources.

    The noun namespaces implements it.
    """

    async def lock(self, transaction: Transaction, cluster: str) -> int:
        """Locks the namespaces on a cluster until the transaction ends; returns how many there are."""

    async def delete_all(self, transaction: Transaction, cluster: str) -> None:
        """Marks the namespaces on a cluster for deletion."""

    async def forget_all(self, transaction: Transaction, cluster: str) -> None:
        """Removes the namespaces on a cluster from the database and leaves their objects where they are."""


async def deregister(
    transaction: Transaction, name: str, objects: Objects, contents: ClusterContents, check: Check
) -> tuple[Cluster, int]:
    """Ends a cluster, or begins to end it.

    Returns it, and the number of namespaces removed or in deletion.

    The transaction belongs to the system role, because it removes rows beyond the caller's rights.

    Raises:
        NotFound: the cluster.
        FailedPrecondition: namespaces are on it and `objects` is `refuse`; the metadata have the counts.
    """
    stored = await registration.locate(transaction, name, "update")
    check(stored)
    namespaces = await contents.lock(transaction, name)
    if namespaces and objects == "refuse":
        raise await _not_empty(transaction, name)
    if namespaces and objects == "delete":
        await contents.delete_all(transaction, name)
        return await _begin(transaction, stored), namespaces
    await contents.forget_all(transaction, name)
    await repository.end(transaction, stored)
    return stored, namespaces


async def finish(store: Store) -> None:
    """Ends the clusters that were only waiting for the deletion of their namespaces."""
    async with store.system_call() as connection:
        names = await repository.deregistered(ReadTransaction(connection))
    for name in names:
        async with store.system_write("reconciler") as transaction:
            stored = await repository.find(transaction, name, "update")
            if stored is None or stored.status != "deregistering":
                continue
            if not (await repository.count_held(transaction, name))["namespaces"]:
                await repository.end(transaction, stored)


async def _not_empty(transaction: Transaction, name: str) -> FailedPrecondition:
    held = await repository.count_held(transaction, name)
    counts = ", ".join(f"{count} {kind}" for kind, count in held.items())
    return FailedPrecondition(
        (
            f'cluster "{name}" is not empty: {counts} are on it; delete them first, or choose whether to '
            "delete them with the cluster or to leave them on it"
        ),
        reason="CLUSTER_NOT_EMPTY",
        metadata={kind: str(count) for kind, count in held.items()},
    )


async def _begin(transaction: Transaction, cluster: Cluster) -> Cluster:
    if cluster.status == "deregistering":
        return cluster
    return await repository.change(
        transaction,
        cluster,
        {
            "status": "deregistering",
            "reason": "NamespacesRemain",
            "message": "its namespaces are being deleted",
        },
    )
