"""One container's reconciliation: load, act, write back.

What the worker may say of the status is little: the observer sees the pods, the worker does not. It writes the
condition `Applied` with the cluster's words, and a status only where there is no pod to be seen: nothing was made
(yet), or the Deployment is at zero.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from pilothouse_server.containers import repository as containers
from pilothouse_server.containers.model import Container, Observed
from pilothouse_server.importing import adopting
from pilothouse_server.kubernetes.errors import ClusterError, Conflict, NotFound, Refused
from pilothouse_server.kubernetes.objects import Deployment
from pilothouse_server.kubernetes.observation import APPLIED, observe, set_condition
from pilothouse_server.kubernetes.rollout import applied_rollout
from pilothouse_server.namespaces import repository as namespaces
from pilothouse_server.reconcile.apply import container_actions
from pilothouse_server.reconcile.apply.container_actions import AGAIN_SECONDS, Result
from pilothouse_server.reconcile.queue.leased_client import LeasedClient, LeaseLost
from pilothouse_server.reconcile.queue.written import Written
from pilothouse_server.reconcile.repository import container_status as written_back
from pilothouse_server.reconcile.repository import work_queue as queue
from pilothouse_server.reconcile.repository.configs import waits_for_configs
from pilothouse_server.reconcile.repository.container_status import Change
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store, Transaction
from pilothouse_server.values.resources import Condition

MESSAGE_LIMIT = 4096


class Loaded(msgspec.Struct, frozen=True):
    """`namespace_ready`: the namespace was brought to the cluster before.

    `configuration_ready`: so were the config maps and secrets that it reads.
    """

    container: Container
    namespace_ready: bool
    service_account_shared: bool
    configuration_ready: bool = True


async def load(store: Store, work: Work) -> Loaded | None:
    """The container as it is wanted now; None where it is gone."""
    async with store.system_read(snapshot=True) as transaction:
        container = await containers.get(transaction, work.resource_id)
        if container is None:
            return None
        namespace = await namespaces.get(transaction, container.namespace_id)
        ready = namespace is not None and namespace.observed_generation > 0
        shared = bool(container.spec.service_account) and await written_back.service_account_used_by_others(
            transaction, container
        )
        configured = not await waits_for_configs(transaction, container)
        return Loaded(container, ready, shared, configured)


async def act(client: LeasedClient, loaded: Loaded) -> Result:
    """Bring the container to the cluster or away from it. Raises ClusterError, LeaseLost."""
    container = loaded.container
    if container.deletion_requested_at is not None:
        return await container_actions.take_away(
            client, container, keep_service_account=loaded.service_account_shared
        )
    if not loaded.namespace_ready:
        # Its own work makes it; the container follows as soon as it is there.
        return Result(
            conditions=(_waiting("WaitingForNamespace", "its namespace is not on the cluster yet"),),
            again_seconds=0.2,
        )
    if not loaded.configuration_ready:
        # Pods that start before would read the former values.
        return Result(
            conditions=(_waiting("WaitingForConfiguration", "what it reads is not on the cluster yet"),),
            again_seconds=0.1,
        )
    return await container_actions.bring(client, container)


async def write_back(transaction: Transaction, work: Work, loaded: Loaded, outcome: object) -> Written:
    """Write what came of it, under the container's lock and the work's epoch. Raises LeaseLost."""
    locked = await written_back.lock_ids(transaction, [work.resource_id])
    if not await queue.hold(transaction, work):
        raise LeaseLost
    if not locked:
        return Written("container", removed=True)
    (container,) = locked
    if isinstance(outcome, ClusterError):
        if isinstance(outcome, NotFound):
            await queue.look_again_at_namespaces(transaction, [int(container.namespace_id)])
        change = _after_error(container, loaded, outcome, work.attempts, transaction.now)
        await written_back.write(transaction, [change], "system")
        return Written("container")
    assert isinstance(outcome, Result)
    if outcome.gone:
        await written_back.delete(transaction, container)
        return Written("container", removed=True)
    if container.deletion_requested_at is not None:
        again = AGAIN_SECONDS if outcome.again_seconds is None else outcome.again_seconds
        return Written("container", again_seconds=again)
    change = _after_success(container, loaded, outcome, transaction.now)
    written = await written_back.write(transaction, [change], "system")
    if outcome.adoption is not None and container.generation == loaded.container.generation:
        # Who asked for something meanwhile goes before; what others did is found again.
        stored = written[0] if written else container
        await adopting.adopt(transaction, stored, outcome.adoption.wanted, outcome.adoption.words)
    metadata = outcome.deployment.metadata if outcome.deployment else None
    return Written(
        "container",
        again_seconds=outcome.again_seconds,
        own_change=(metadata.uid, metadata.generation) if metadata and metadata.uid else None,
    )


def _after_success(container: Container, loaded: Loaded, result: Result, now: datetime) -> Change:
    conditions = container.observed.conditions
    for condition in result.conditions:
        conditions = set_condition(conditions, condition, now)
    subject = _with_conditions(container, conditions)
    deployment = result.deployment
    observed = _forget_refusal(container, subject.observed)
    if deployment is None:
        observed = _keep_stale(container, observe(subject, None, now=now).observed)
    elif container.wanted_replicas == 0 and deployment.spec.replicas == 0 and deployment.status.replicas == 0:
        observed = _keep_stale(container, observe(subject, deployment, now=now).observed)
    if deployment is not None:
        observed = _with_rollout(container, observed, deployment, now)
    waiting = result.again_seconds is not None
    return Change(container, observed, container.observed_generation if waiting else _seen(container, loaded))


def _with_rollout(
    container: Container, observed: Observed, deployment: Deployment, now: datetime
) -> Observed:
    """Told with the generation that was dealt with, or that would seem rolled out until the observer sees it."""
    rollout = applied_rollout(container, deployment)
    if rollout is None:
        return observed
    conditions = set_condition(observed.conditions, rollout, now)
    observed = msgspec.structs.replace(observed, conditions=conditions)
    if rollout in container.observed.conditions or rollout.status == "True" or observed.status != "running":
        return observed
    return msgspec.structs.replace(observed, reason=rollout.reason, message=rollout.message)


def _after_error(
    container: Container, loaded: Loaded, error: ClusterError, attempts: int, now: datetime
) -> Change:
    refused = isinstance(error, Refused) and not isinstance(error, NotFound)
    refused = refused and not container_actions.namespace_is_leaving(error)
    if isinstance(error, Conflict) and error.retryable and error.status_reason != "NameTaken":
        refused = False
    if not refused and attempts == 0:
        # Once is nothing: most of what fails in passing is over at the second attempt.
        return Change(container, container.observed, container.observed_generation)
    status = "False" if refused else "Unknown"
    condition = msgspec.convert(
        {
            "type": APPLIED,
            "status": status,
            "reason": error.reason[:100],
            "message": error.message[:MESSAGE_LIMIT],
        },
        Condition,
    )
    subject = _with_conditions(container, set_condition(container.observed.conditions, condition, now))
    observed = subject.observed
    if not container.observed.deployment_name and container.deletion_requested_at is None:
        observed = _keep_stale(container, observe(subject, None, now=now).observed)
    # A refusal is an answer: the generation was dealt with. What did not get through was not.
    generation = _seen(container, loaded) if refused else container.observed_generation
    return Change(container, observed, generation)


def _seen(container: Container, loaded: Loaded) -> int:
    """The generation that was acted on; the container may have moved on since, never back."""
    return max(container.observed_generation, min(loaded.container.generation, container.generation))


def _with_conditions(container: Container, conditions: tuple[Condition, ...]) -> Container:
    return msgspec.structs.replace(
        container, observed=msgspec.structs.replace(container.observed, conditions=conditions)
    )


def _keep_stale(container: Container, observed: Observed) -> Observed:
    return msgspec.structs.replace(observed, stale_since=container.observed.stale_since)


def _forget_refusal(before: Container, observed: Observed) -> Observed:
    """Take back the words of a refusal that is over; the observer fills in what there is to say instead."""
    old = next((c for c in before.observed.conditions if c.type == APPLIED and c.status != "True"), None)
    now_applied = any(c.type == APPLIED and c.status == "True" for c in observed.conditions)
    if old is None or not now_applied or (observed.reason, observed.message) != (old.reason, old.message):
        return observed
    status = "pending" if observed.status == "failed" else observed.status
    return msgspec.structs.replace(observed, status=status, reason="", message="")


def _waiting(reason: str, message: str) -> Condition:
    return Condition(APPLIED, "Unknown", reason, message)
