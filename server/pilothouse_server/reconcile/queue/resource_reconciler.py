"""What the worker needs of a type of resource: load it, act on the cluster, write back what came of it.

    load        the row as it is wanted now, in one snapshot of the database
    act         outside any transaction: apply it to the cluster, or delete it there
    write_back  in one transaction with the end of the lease on the work

Killed between any two, a worker leaves its work to the next one, which starts again with `load`.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store, Transaction

Loaded = TypeVar("Loaded")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far `act` came. `again_seconds`: the cluster is not done, look again then. `gone`: nothing of it is left."""

    again_seconds: float | None = None
    gone: bool = False


Acted = TypeVar("Acted", bound=Progress)


class Result(msgspec.Struct, frozen=True):
    """What `write_back` leaves for the queue.

    `again_seconds`: look again then; None at the next resync. `removed`: the resource is gone, and its work with it.
    `applied`: uid and generation of the Deployment that our apply led to.
    """

    again_seconds: float | None = None
    removed: bool = False
    applied: tuple[str, int] | None = None


class ResourceReconciler(Protocol[Loaded, Acted]):
    """The reconciliation of one type of resource. `Loaded` holds its row and whatever else `act` decides by."""

    async def load(self, store: Store, work: Work) -> Loaded | None:
        """Returns the resource as it is wanted now; None where it is gone."""

    async def act(self, client: LeasedClient, loaded: Loaded) -> Acted:
        """Applies the resource to the cluster or deletes it there; may be repeated. Raises ClusterError, LeaseLost."""

    async def write_back(
        self, transaction: Transaction, work: Work, loaded: Loaded, outcome: Acted | ClusterError
    ) -> Result:
        """Writes what came of it, under the resource's lock and the work's epoch. Raises LeaseLost."""
