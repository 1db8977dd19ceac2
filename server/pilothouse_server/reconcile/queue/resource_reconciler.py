"""The interface of a type of resource for the worker: load it, act on the cluster, write the result back.

    load        rows in their desired state, many in one transaction
    act         on one resource, outside any transaction: apply it to the cluster, or delete it there
    write_back  many in one transaction, with the ends of their leases; simple results by `write_batch`

If a worker is killed between two steps, the next holder of the work starts again with `load`.
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
    """How far `act` came.

    `again_seconds`: the cluster is not done, check it again after this time. `gone`: nothing of the resource is left.
    `objects`: the fingerprints of all its objects on the cluster, as `act` left them; None if it is not done.
    """

    again_seconds: float | None = None
    gone: bool = False
    objects: Mapping[str, str] | None = None


Acted = TypeVar("Acted", bound=Progress)


class Done(msgspec.Struct, Generic[Loaded, Acted], frozen=True):
    """Work that was acted on, and its result."""

    work: Work
    loaded: Loaded
    outcome: Acted | ClusterError


class Result(msgspec.Struct, frozen=True):
    """The result of `write_back` for the queue.

    `again_seconds`: time until the next reconciliation; None means the next resync. `removed`: the resource is deleted,
    and its work with it. `applied`: uid and generation of the Deployment after our apply, or uid and version of the
    carried object. `lost`: another server has the lease, and nothing was written.
    """

    again_seconds: float | None = None
    removed: bool = False
    applied: tuple[str, int] | None = None
    lost: bool = False


LOST = Result(lost=True)


class ResourceReconciler(Protocol[Loaded, Acted]):
    """The reconciliation of one type of resource. `Loaded` has its row and the other inputs of `act`.

    `batch_size`: number of rows that one transaction loads or writes back. `in_snapshot`: whether loading needs one
    snapshot of the database; if not, a later statement may see newer rows.
    """

    batch_size: ClassVar[int]
    in_snapshot: ClassVar[bool]

    async def load(self, transaction: ReadTransaction, works: Sequence[Work]) -> Mapping[Work, Loaded]:
        """Returns the resources in their desired state; deleted resources are left out."""

    async def act(self, client: LeasedClient, loaded: Loaded) -> Acted:
        """Applies the resource to the cluster or deletes it there; may be repeated. Raises ClusterError, LeaseLost."""

    async def write_batch(
        self, store: Store, dones: Sequence[Done[Loaded, Acted]], resync: Callable[[], float]
    ) -> Mapping[Work, Result]:
        """Writes as many results as possible in one message, and ends their leases.

        `write_back` writes the rest.

        `resync` returns the seconds until a resource is due again, a new random value at each call.
        """

    async def write_back(
        self, transaction: Transaction, dones: Sequence[Done[Loaded, Acted]]
    ) -> Mapping[Work, Result]:
        """Writes each result, under the resource's lock and the work's epoch.

        With a single result the transaction waits for the row's lock. With several, results whose row is locked are
        left out of the transaction and of the returned mapping: write them one by one.
        """
