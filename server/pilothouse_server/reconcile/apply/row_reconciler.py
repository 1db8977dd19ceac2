"""What the reconcilers of all types have in common: how an outcome is written back, and what a failure says.

    row locked -> lease on the work held, or LeaseLost -> failure, end or progress written

A refusal is an answer: the generation was dealt with, and `Applied` is False. What did not get through was not dealt
with: `Applied` is Unknown.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.errors import NAME_TAKEN, ClusterError, Conflict, Refused
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.queue.resource_reconciler import Acted, Loaded, ResourceReconciler, Result
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.resources import Condition

# How soon to look whether the cluster has finished what was asked of it; its observer mostly says so earlier.
AGAIN_SECONDS = 0.5
_REASON_LIMIT, _MESSAGE_LIMIT = 100, 4096

Row = TypeVar("Row")


class RowReconciler(ResourceReconciler[Loaded, Acted], Generic[Row, Loaded, Acted]):
    """A reconciler whose resource is one row of the database."""

    async def write_back(
        self, transaction: Transaction, work: Work, loaded: Loaded, outcome: Acted | ClusterError
    ) -> Result:
        """Writes what came of it, under the row's lock and the work's epoch. Raises LeaseLost."""
        row = await self.lock(transaction, work.resource_id)
        if not await work_queue.hold(transaction, work):
            raise LeaseLost
        if row is None:
            return Result(removed=True)
        if isinstance(outcome, ClusterError):
            await self.write_error(transaction, row, loaded, outcome, work.attempts)
            return Result()
        if outcome.gone:
            return await self.write_gone(transaction, row)
        return await self.write_progress(transaction, row, loaded, outcome)

    @abstractmethod
    async def lock(self, transaction: Transaction, resource_id: int) -> Row | None:
        """Locks and returns the row; None where it is gone."""

    @abstractmethod
    async def write_error(
        self, transaction: Transaction, row: Row, loaded: Loaded, error: ClusterError, attempts: int
    ) -> None:
        """Writes what the cluster answered, after so many failures before this one."""

    @abstractmethod
    async def write_gone(self, transaction: Transaction, row: Row) -> Result:
        """Deletes the row, of which the cluster holds nothing any more."""

    @abstractmethod
    async def write_progress(
        self, transaction: Transaction, row: Row, loaded: Loaded, progress: Acted
    ) -> Result:
        """Writes how far `act` came."""


class Generations(Protocol):
    """A row with the generation that is wanted and the one that was dealt with last."""

    @property
    def generation(self) -> int: ...

    @property
    def observed_generation(self) -> int: ...


def dealt_with(row: Generations, generation: int) -> int:
    """Returns the row's observed generation after one was acted on: it never goes back, nor beyond what is wanted."""
    return max(row.observed_generation, min(generation, row.generation))


def waiting(reason: str, message: str) -> Condition:
    """Returns the condition of a resource that waits for something else."""
    return Condition(APPLIED, "Unknown", reason, message)


def failed(error: ClusterError, *, refused: bool) -> Condition:
    """Returns the condition of a resource that could not be applied, in the cluster's words."""
    reason, message = error.reason[:_REASON_LIMIT], error.message[:_MESSAGE_LIMIT]
    return Condition(APPLIED, "False" if refused else "Unknown", reason, message)


def is_name_taken(error: ClusterError) -> bool:
    """Returns whether an object of somebody else has the name."""
    return isinstance(error, Conflict) and error.status_reason == NAME_TAKEN


def is_refusal(error: ClusterError) -> bool:
    """Returns whether the cluster will answer the same until somebody changes something."""
    return is_name_taken(error) or (isinstance(error, Refused) and not error.retryable)
