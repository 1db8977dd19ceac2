"""What the worker asks of a kind of resource: load it, act on the cluster, write back what came of it.

A module with these three functions is one (`reconcile_container`), and so is an object that also knows things.
"""

from __future__ import annotations

from typing import Any, Protocol

from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.written import Written
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store, Transaction


class Noun(Protocol):
    """The reconciliation of one type of resource; what `load` answers goes to the other two."""

    async def load(self, store: Store, work: Work) -> Any:
        """The resource as it is wanted now; None where it is gone."""

    async def act(self, client: LeasedClient, loaded: Any) -> Any:
        """Brings it to the cluster or away from it. Raises ClusterError, LeaseLost."""

    async def write_back(self, transaction: Transaction, work: Work, loaded: Any, outcome: object) -> Written:
        """Writes what came of it, under the resource's lock and the work's epoch. Raises LeaseLost."""
