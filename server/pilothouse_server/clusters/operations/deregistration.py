"""How a cluster ends, and what becomes of what is on it.

A cluster without namespaces goes at once. One with namespaces is refused, unless the caller has chosen:

  * ORPHAN: everything of it is forgotten here, in this one transaction, and stays on the cluster. It must be one: were
    a container marked for deletion first, or forgotten before its namespace, the reconciler or its sweep would delete
    from the cluster what was to stay.
  * DELETE: its namespaces are marked for deletion as DeleteNamespace does. The reconciler deletes them from the
    cluster; when the last is gone so is the cluster (`finish`). One that never answers again may be ORPHANed instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import msgspec

from pilothouse_server.clusters import repository
from pilothouse_server.clusters.model import Cluster
from pilothouse_server.clusters.operations import registration
from pilothouse_server.clusters.operations.registration import Check
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.namespaces import operations as namespaces
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import Cascade
from pilothouse_server.store.unit_of_work import Store, Transaction

Objects = Literal["refuse", "orphan", "delete"]
# Forgets everything of one noun in a namespace, with its events; the cluster keeps it.
Forget = Callable[[Transaction, Namespace], Awaitable[None]]


class Nouns(msgspec.Struct, frozen=True):
    """What each noun that lives in namespaces adds: how its things are marked for deletion, and how forgotten."""

    cascades: tuple[Cascade, ...]
    forgets: tuple[Forget, ...]


async def deregister(
    transaction: Transaction, name: str, objects: Objects, nouns: Nouns, check: Check
) -> tuple[Cluster, int]:
    """Ends a cluster, or begins to. Answers it, and how many namespaces are forgotten or being deleted.

    The transaction is of the system role: what is forgotten is removed beyond what a caller may.

    Raises:
        NotFound: the cluster.
        FailedPrecondition: namespaces are on it and `objects` is `refuse`; metadata holds the counts.
    """
    stored = await registration.locate(transaction, name, "update")
    check(stored)
    on_it = await namespaces.on_cluster(transaction, name)
    if on_it and objects == "refuse":
        held = await repository.count_held(transaction, name)
        counts = ", ".join(f"{count} {kind}" for kind, count in held.items())
        raise FailedPrecondition(
            f'cluster "{name}" is not empty: {counts} are on it; delete them first, or choose whether they are '
            "deleted with it or left there",
            reason="CLUSTER_NOT_EMPTY",
            metadata={kind: str(count) for kind, count in held.items()},
        )
    if on_it and objects == "delete":
        return await _begin(transaction, stored, on_it, nouns.cascades), len(on_it)
    for namespace in on_it:
        for forget in nouns.forgets:
            await forget(transaction, namespace)
        await namespaces.refuse_holding(transaction, namespace)
        await namespaces.end(transaction, namespace)
    await repository.end(transaction, stored)
    return stored, len(on_it)


async def finish(store: Store) -> None:
    """Ends the clusters that were only waiting for their namespaces to go."""
    async with store.system_read() as transaction:
        names = await repository.deregistered(transaction)
    for name in names:
        async with store.system_write("reconciler") as transaction:
            stored = await repository.find(transaction, name, "update")
            if stored is None or stored.status != "deregistering":
                continue
            if not await namespaces.on_cluster(transaction, name):
                await repository.end(transaction, stored)


async def _begin(
    transaction: Transaction, cluster: Cluster, on_it: Sequence[Namespace], cascades: Sequence[Cascade]
) -> Cluster:
    for namespace in on_it:
        await namespaces.delete(
            transaction, namespace.name, cascade=True, cascades=cascades, check=lambda _: None
        )
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
