"""Decisions about orphans: objects with our label on a cluster that the database does not have.

The reconciler's sweep lists them in the database and carries out the decisions; nothing here calls a cluster. An
import is done by the noun `importing`; this module only removes the rows.

A hold ends only by a decision that leaves no orphan undecided. That requires a sweep in the present history: before it,
the list is that of the older database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.clusters import repository
from pilothouse_server.clusters.model import Cluster, OrphanedObject, OrphanState, OrphanSweeps
from pilothouse_server.clusters.operations import registration
from pilothouse_server.errors import FailedPrecondition, not_found
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

Read = Callable[[], AbstractAsyncContextManager[ReadTransaction]]

# Kinds that can be imported by themselves; objects of other kinds come with a workload that needs them.
IMPORTABLE = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ConfigMap", "Secret", "Service")
MOST_IMPORTED = 100

_NOT_DELETED: Mapping[str, str] = {
    "Namespace": (
        "a Kubernetes namespace is not deleted with its contents: decide about its objects, or delete it "
        "on the cluster"
    ),
    "PersistentVolumeClaim": "a claim contains data and is not deleted: delete it on the cluster if nobody needs it",
}
_NOT_IMPORTED: Mapping[str, str] = {
    "Namespace": "take it over by CreateNamespace with `adopt`",
    "PersistentVolumeClaim": "it is imported with the workload that mounts it",
    "ServiceAccount": "it is imported with the workload that names it",
}

_CARRIED = "a carried object is not imported with its uid: delete it, and create it again with CreateObject"


class Resolved(msgspec.Struct, frozen=True):
    """The result for one orphan.

    `imported_as`: the name of its resource. `problems`: why nothing was decided.
    """

    orphan: OrphanedObject
    imported_as: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    # Kind, Kubernetes namespace and name of all objects that were taken over with it.
    taken: tuple[tuple[str, str, str], ...] = ()


class OrphanImport(Protocol):
    """The findings of an import on the cluster."""

    async def create(self, transaction: Transaction) -> list[Resolved]:
        """Creates the resources that can be imported, each by itself."""


class OrphanImporter(Protocol):
    """Takes orphans over. The noun `importing` implements it."""

    async def discover(
        self, read: Read, cluster: str, orphans: Sequence[OrphanedObject], may: Callable[[str], May]
    ) -> OrphanImport:
        """Reads the orphans from the cluster, outside any transaction; `may` checks a namespace.

        Raises:
            Unavailable: the cluster does not respond in time.
            FailedPrecondition: it denies the read.
        """


async def list_page(
    transaction: ReadTransaction, cluster: str, page: PageRequest
) -> tuple[Sequence[OrphanedObject], NextPage]:
    """Returns one page of a cluster's orphans, and where the next page begins. Raises NotFound: the cluster."""
    await registration.locate(transaction, cluster)
    return await repository.list_orphans(transaction, cluster, page)


async def find(
    transaction: ReadTransaction, cluster: str, uids: Sequence[str] | None, kinds: Sequence[str] | None = None
) -> list[OrphanedObject]:
    """Returns the orphans of a cluster with these uids.

    Without uids it returns all undecided ones, only of `kinds` if given.

    Raises:
        NotFound: the cluster, or an orphan.
    """
    await registration.locate(transaction, cluster)
    found = await repository.find_orphans(
        transaction, cluster, uids=uids, kinds=kinds if uids is None else None
    )
    if missing := set(uids or ()) - {orphan.uid for orphan in found}:
        raise not_found("orphan", min(missing))
    return found


async def uids_of(transaction: ReadTransaction, cluster: str) -> frozenset[str]:
    """Returns the uids of a cluster's orphans, except those that somebody decided to delete."""
    return await repository.orphan_uids(transaction, cluster)


async def decide(
    transaction: Transaction, cluster: Cluster, orphans: Sequence[OrphanedObject], state: OrphanState
) -> list[Resolved]:
    """Marks orphans to be kept or deleted; returns the result of each.

    The transaction has locked the cluster.
    """
    refused = _NOT_DELETED if state == "deleting" else {}
    uids = [orphan.uid for orphan in orphans if orphan.kind not in refused]
    await repository.decide_orphans(transaction, cluster.name, uids, state)
    return [
        Resolved(orphan, problems=(refused[orphan.kind],))
        if orphan.kind in refused
        else Resolved(msgspec.structs.replace(orphan, state=state))
        for orphan in orphans
    ]


def not_importable(orphan: OrphanedObject) -> Resolved | None:
    """Returns why an orphan is not imported by itself; None if it may be."""
    if orphan.kind in IMPORTABLE:
        return None
    return Resolved(orphan, problems=(_NOT_IMPORTED.get(orphan.kind, _CARRIED),))


async def take(transaction: Transaction, cluster: Cluster, resolved: Sequence[Resolved]) -> None:
    """Removes imported orphans from the list."""
    taken = [each for item in resolved for each in item.taken]
    if taken:
        await repository.remove_orphans(transaction, cluster.name, taken)


async def settle(transaction: Transaction, cluster: Cluster) -> OrphanSweeps:
    """Ends the hold if no orphan is undecided any more; returns the state afterwards."""
    sweeps = await repository.sweeps(transaction, cluster)
    if sweeps.is_held and sweeps.is_listed and not sweeps.undecided:
        await repository.end_hold(transaction, cluster)
        return msgspec.structs.replace(sweeps, is_held=False)
    return sweeps


async def lock(transaction: Transaction, name: str) -> Cluster:
    """Locks the cluster, so that decisions about its orphans are made one after the other.

    Raises:
        NotFound: the cluster.
        FailedPrecondition: it has not been swept since the present history began.
    """
    cluster = await registration.locate(transaction, name, "update")
    sweeps = await repository.sweeps(transaction, cluster)
    if sweeps.is_held and not sweeps.is_listed:
        raise FailedPrecondition(
            (
                f'the orphans of cluster "{name}" have not been listed since the new history of the '
                "database began: retry once the cluster responds"
            ),
            reason="ORPHANS_NOT_LISTED",
        )
    return cluster


async def counts(store: Store) -> tuple[dict[tuple[str, str], int], dict[str, bool]]:
    """Returns orphan counts by cluster and state, and by cluster whether deletion is held.

    Raises Unavailable.
    """
    async with store.system_read() as transaction:
        return await repository.count_orphans(transaction)
