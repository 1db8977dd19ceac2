"""The common part of the reconcilers of all types: how outcomes are written back, and the messages of failures.

    rows locked -> leases on the work held -> failure, end or progress of each written

Rows are locked in the order of their ids, and all of them before their work rows. A row with a lost lease is left
alone.

A refusal is final for that generation: it counts as observed, and `Applied` is False. An apply without a response is
not final: `Applied` is Unknown.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from pilothouse_server.kubernetes.conditions import APPLIED, set_condition
from pilothouse_server.kubernetes.errors import ClusterError, NotFound
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.repository import get as get_namespace
from pilothouse_server.reconcile.queue.resource_reconciler import (
    LOST,
    Acted,
    Done,
    Loaded,
    ResourceReconciler,
    Result,
)
from pilothouse_server.reconcile.repository import namespace_status, work_queue
from pilothouse_server.reconcile.repository.observed_rows import ObservedChange
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction
from pilothouse_server.values.resources import Condition, NamespaceId

# How soon to check whether the cluster has finished the request; its observer usually reports it earlier.
AGAIN_SECONDS = 0.5
_REASON_LIMIT, _MESSAGE_LIMIT = 100, 4096

WAITING_FOR_NAMESPACE = Condition(
    APPLIED, "Unknown", "WaitingForNamespace", "its namespace is not on the cluster yet"
)
_NAMESPACE_AGAIN_SECONDS, _REFUSED_NAMESPACE_AGAIN_SECONDS = 0.2, 5.0

Row = TypeVar("Row")


class RowReconciler(ResourceReconciler[Loaded, Acted], Generic[Row, Loaded, Acted]):
    """A reconciler whose resource is one row of the database."""

    in_snapshot: ClassVar[bool] = True

    async def write_batch(
        self, store: Store, dones: Sequence[Done[Loaded, Acted]], resync: Callable[[], float]
    ) -> Mapping[Work, Result]:
        """Writes nothing: `write_back` writes all results."""
        return {}

    async def write_back(
        self, transaction: Transaction, dones: Sequence[Done[Loaded, Acted]]
    ) -> Mapping[Work, Result]:
        """Writes the result of each, under the rows' locks and the work's epochs."""
        alone = len(dones) == 1
        rows = await self.lock(transaction, dones, wait=alone)
        taken = [done for done in dones if alone or done.work.resource_id in rows]
        held = set(await work_queue.hold(transaction, [done.work for done in taken]))
        results: dict[Work, Result] = {}
        progresses: list[tuple[Row, Done[Loaded, Acted], Acted]] = []
        vanished: set[int] = set()
        for done in taken:
            work, outcome, row = done.work, done.outcome, rows.get(done.work.resource_id)
            if work not in held:
                results[work] = LOST
            elif row is None:
                results[work] = Result(removed=True)
            elif isinstance(outcome, ClusterError):
                await self.write_error(transaction, row, done.loaded, outcome, work.attempts)
                results[work] = Result()
                if isinstance(outcome, NotFound) and work.resource_type != "namespace" and work.namespace_id:
                    vanished.add(work.namespace_id)
            elif outcome.gone:
                results[work] = await self.write_deleted(transaction, row)
            else:
                progresses.append((row, done, outcome))
        written = await self.write_progress(
            transaction, [(row, done.loaded, progress) for row, done, progress in progresses]
        )
        for (_, done, _), result in zip(progresses, written, strict=True):
            results[done.work] = result
        # Others have deleted these namespaces. One statement for all: other transactions lock work in the order of ids.
        await work_queue.requeue_namespaces(transaction, sorted(vanished))
        return results

    @abstractmethod
    async def lock(
        self, transaction: Transaction, dones: Sequence[Done[Loaded, Acted]], *, wait: bool
    ) -> Mapping[int, Row]:
        """Locks rows and returns them by id; deleted rows are left out.

        Without `wait`, rows that another transaction has locked are left out, too.
        """

    @abstractmethod
    async def write_error(
        self, transaction: Transaction, row: Row, loaded: Loaded, error: ClusterError, attempts: int
    ) -> None:
        """Writes the cluster's error; `attempts` is the number of failures before it."""

    @abstractmethod
    async def write_deleted(self, transaction: Transaction, row: Row) -> Result:
        """Deletes the row of a resource of which nothing is left on the cluster."""

    @abstractmethod
    async def write_progress(
        self, transaction: Transaction, progresses: Sequence[tuple[Row, Loaded, Acted]]
    ) -> Sequence[Result]:
        """Writes how far `act` came with each, in the given order."""


class OneByOne(RowReconciler[Row, Loaded, Acted]):
    """A reconciler of a type with few rows: each row has a transaction of its own."""

    batch_size: ClassVar[int] = 1

    async def load(self, transaction: ReadTransaction, works: Sequence[Work]) -> Mapping[Work, Loaded]:
        """Returns the resources that still have a row, in their present desired state."""
        loaded = {work: await self.load_one(transaction, work) for work in works}
        return {work: each for work, each in loaded.items() if each is not None}

    async def lock(
        self, transaction: Transaction, dones: Sequence[Done[Loaded, Acted]], *, wait: bool
    ) -> Mapping[int, Row]:
        """Locks the one row, however long that takes, and returns it; empty if it is deleted."""
        assert wait, "one at a time is waited for"
        rows = {
            done.work.resource_id: await self.lock_one(transaction, done.work.resource_id) for done in dones
        }
        return {resource_id: row for resource_id, row in rows.items() if row is not None}

    async def write_progress(
        self, transaction: Transaction, progresses: Sequence[tuple[Row, Loaded, Acted]]
    ) -> Sequence[Result]:
        """Writes how far `act` came."""
        return [await self.write_one(transaction, *progress) for progress in progresses]

    @abstractmethod
    async def load_one(self, transaction: ReadTransaction, work: Work) -> Loaded | None:
        """Returns the resource in its desired state; None if it is deleted."""

    @abstractmethod
    async def lock_one(self, transaction: Transaction, resource_id: int) -> Row | None:
        """Locks and returns the row; None if it is deleted."""

    @abstractmethod
    async def write_one(self, transaction: Transaction, row: Row, loaded: Loaded, progress: Acted) -> Result:
        """Writes how far `act` came."""


class Generations(Protocol):
    """A row with its desired generation and the last one that was applied or refused."""

    @property
    def generation(self) -> int: ...

    @property
    def observed_generation(self) -> int: ...


def dealt_with(row: Generations, generation: int) -> int:
    """Returns the row's observed generation after an action: never lower than before, nor above the desired one."""
    return max(row.observed_generation, min(generation, row.generation))


def waiting(reason: str, message: str) -> Condition:
    """Returns the condition of a resource that waits for something else."""
    return Condition(APPLIED, "Unknown", reason, message)


async def read_namespace_not_ready(
    transaction: ReadTransaction, home: NamespaceId | Namespace, *, going: bool
) -> Condition | None:
    """Returns the condition of a resource whose namespace is missing; None if it is ours.

    The condition has the cluster's message if the cluster refuses the namespace. For a resource that is being deleted
    (`going`) the result is None if some of its objects may be there.
    """
    namespace = home if isinstance(home, Namespace) else await get_namespace(transaction, home)
    if namespace is None:
        return WAITING_FOR_NAMESPACE
    is_there = namespace_status.may_hold_ours if going else namespace_status.is_on_cluster
    if is_there(namespace):
        return None
    refusals = await namespace_status.refusals(transaction, {namespace.id})
    return refusals.get(namespace.id, WAITING_FOR_NAMESPACE)


def namespace_retry_seconds(condition: Condition) -> float:
    """Returns how soon to check again for a missing namespace, which its own work creates."""
    return _REFUSED_NAMESPACE_AGAIN_SECONDS if condition.status == "False" else _NAMESPACE_AGAIN_SECONDS


def failed(error: ClusterError, *, refused: bool) -> Condition:
    """Returns the condition of a resource that could not be applied, with the cluster's message."""
    reason, message = error.reason[:_REASON_LIMIT], error.message[:_MESSAGE_LIMIT]
    return Condition(APPLIED, "False" if refused else "Unknown", reason, message)


def change_of_failure(
    transaction: Transaction, row: Any, error: ClusterError, attempts: int, generation: int
) -> ObservedChange[Any, Any] | None:
    """Returns the values of a row after a refusal of `generation`, or a failure that occurred more than once.

    None: the row stays as it is.
    """
    if row.deletion_requested_at is not None:
        return None
    refused = error.outlook == "refused"
    if not refused and attempts == 0:
        # A first failure is not written: most transient failures are over at the second attempt.
        return None
    condition = failed(error, refused=refused)
    observed = msgspec.structs.replace(
        row.observed, conditions=set_condition(row.observed.conditions, condition, transaction.now)
    )
    if not refused:
        return ObservedChange(row, observed, row.observed_generation)
    observed = msgspec.structs.replace(
        observed, status="failed", reason=condition.reason, message=condition.message
    )
    return ObservedChange(row, observed, dealt_with(row, generation))
