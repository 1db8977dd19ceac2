"""What the worker needs of a type of resource: load it, act on the cluster, write back what came of it.

    load        rows as they are wanted now, many at once
    act         of one, outside any transaction: apply it to the cluster, or delete it there
    write_back  many in one transaction with the ends of the leases on their work; what is simple, `write_at_once`

Killed between any two, a worker leaves its work to the next one, which starts again with `load`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import msgspec

from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

Loaded = TypeVar("Loaded")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far `act` came. `again_seconds`: the cluster is not done, look again then. `gone`: nothing of it is left.

    `objects`: the marks of all that it consists of on the cluster, as `act` left it; None where it is not done.
    """

    again_seconds: float | None = None
    gone: bool = False
    objects: Mapping[str, str] | None = None


Acted = TypeVar("Acted", bound=Progress)


class Done(msgspec.Struct, Generic[Loaded, Acted], frozen=True):
    """Work that was acted on, and what came of it."""

    work: Work
    loaded: Loaded
    outcome: Acted | ClusterError


class Result(msgspec.Struct, frozen=True):
    """What `write_back` leaves for the queue.

    `again_seconds`: look again then; None at the next resync. `removed`: the resource is gone, and its work with it.
    `applied`: uid and generation of the Deployment that our apply led to. `lost`: the lease is somebody else's, and
    nothing was written.
    """

    again_seconds: float | None = None
    removed: bool = False
    applied: tuple[str, int] | None = None
    lost: bool = False


LOST = Result(lost=True)


class ResourceReconciler(Protocol[Loaded, Acted]):
    """The reconciliation of one type of resource. `Loaded` holds its row and whatever else `act` decides by.

    `at_once`: how many are loaded, and written back, in one transaction. `in_snapshot`: whether loading needs one
    snapshot of the database, or each of its statements may see what is newer.
    """

    at_once: ClassVar[int]
    in_snapshot: ClassVar[bool]

    async def load(self, transaction: ReadTransaction, works: Sequence[Work]) -> Mapping[Work, Loaded]:
        """Returns the resources as they are wanted now; those that are gone are left out."""

    async def act(self, client: LeasedClient, loaded: Loaded) -> Acted:
        """Applies the resource to the cluster or deletes it there; may be repeated. Raises ClusterError, LeaseLost."""

    async def write_at_once(
        self, store: Store, dones: Sequence[Done[Loaded, Acted]], resync: Callable[[], float]
    ) -> Mapping[Work, Result]:
        """Writes what it can in one message, and ends the leases; leaves out what is to be written by `write_back`.

        `resync` returns the seconds until one is due again, others for each.
        """

    async def write_back(
        self, transaction: Transaction, dones: Sequence[Done[Loaded, Acted]]
    ) -> Mapping[Work, Result]:
        """Writes what came of each, under the resource's lock and the work's epoch.

        Of one alone, the row is waited for. Of several, those whose row somebody holds are left out of the result, and
        of the transaction: they are to be written one by one.
        """
