"""One namespace's reconciliation: load, act, write back."""

from __future__ import annotations

import msgspec

from pilothouse_server.kubernetes.errors import ClusterError, Conflict, Refused
from pilothouse_server.kubernetes.observation import APPLIED, set_condition
from pilothouse_server.namespaces import repository as namespaces
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.reconcile.apply import namespace_actions
from pilothouse_server.reconcile.apply.namespace_actions import AGAIN_SECONDS, Result
from pilothouse_server.reconcile.queue.leased_client import LeasedClient, LeaseLost
from pilothouse_server.reconcile.queue.written import Written
from pilothouse_server.reconcile.repository import namespace_status as written_back
from pilothouse_server.reconcile.repository import work_queue as queue
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store, Transaction
from pilothouse_server.values.resources import Condition


class Loaded(msgspec.Struct, frozen=True):
    namespace: Namespace
    holds_containers: bool


async def load(store: Store, work: Work) -> Loaded | None:
    """The namespace as it is wanted now; None where it is gone."""
    async with store.system_read(snapshot=True) as transaction:
        namespace = await namespaces.get(transaction, work.resource_id)
        if namespace is None:
            return None
        return Loaded(namespace, await written_back.holds_containers(transaction, int(namespace.id)))


async def act(client: LeasedClient, loaded: Loaded) -> Result:
    """Bring the namespace to the cluster or away from it. Raises ClusterError, LeaseLost."""
    namespace = loaded.namespace
    if namespace.deletion_requested_at is None:
        return await namespace_actions.bring(client, namespace)
    if loaded.holds_containers:
        # They go first, each with its own events; then there is nothing left that the deletion could take along.
        return Result(phase=namespace.phase, reason="DeletingContainers", again_seconds=AGAIN_SECONDS / 2)
    return await namespace_actions.take_away(client, namespace)


async def write_back(transaction: Transaction, work: Work, loaded: Loaded, outcome: object) -> Written:
    """Write what came of it, under the namespace's lock and the work's epoch. Raises LeaseLost."""
    namespace = await written_back.lock(transaction, work.resource_id)
    if not await queue.hold(transaction, work):
        raise LeaseLost
    if namespace is None:
        return Written("namespace", removed=True)
    if isinstance(outcome, ClusterError):
        await _write_error(transaction, namespace, loaded, outcome)
        return Written("namespace")
    assert isinstance(outcome, Result)
    if outcome.gone:
        if await written_back.holds_containers(transaction, int(namespace.id)):
            return Written("namespace", again_seconds=AGAIN_SECONDS)
        await written_back.delete(transaction, namespace)
        return Written("namespace", removed=True)
    applied = outcome.again_seconds is None
    conditions = namespace.conditions
    if applied:
        conditions = set_condition(conditions, Condition(APPLIED, "True", "Applied"), transaction.now)
    await written_back.write(
        transaction,
        namespace,
        phase=outcome.phase,
        reason=outcome.reason,
        message=outcome.message,
        conditions=conditions,
        observed_generation=_seen(namespace, loaded) if applied else namespace.observed_generation,
    )
    return Written("namespace", again_seconds=outcome.again_seconds)


async def _write_error(
    transaction: Transaction, namespace: Namespace, loaded: Loaded, error: ClusterError
) -> None:
    taken = isinstance(error, Conflict) and error.status_reason == "NameTaken"
    refused = taken or (isinstance(error, Refused) and not error.retryable)
    condition = Condition(APPLIED, "False" if refused else "Unknown", error.reason[:100], error.message)
    # A namespace that was refused is not on the cluster: its containers go on waiting for it.
    generation = (
        _seen(namespace, loaded)
        if refused and namespace.observed_generation
        else namespace.observed_generation
    )
    await written_back.write(
        transaction,
        namespace,
        phase=namespace.phase,
        reason=error.reason,
        message=error.message,
        conditions=set_condition(namespace.conditions, condition, transaction.now),
        observed_generation=generation,
    )


def _seen(namespace: Namespace, loaded: Loaded) -> int:
    return max(namespace.observed_generation, min(loaded.namespace.generation, namespace.generation))
