"""Containers on their clusters, each a workload with its Services.

The worker writes little of the status, because only the observer sees the pods. It writes the
condition `Applied` with the cluster's message, and a status only if there are no pods to observe: nothing is created
yet, or the workload is at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import ClassVar

import msgspec

from pilothouse_server.containers.drift_rules import DEFAULT_RULES, DriftRules
from pilothouse_server.containers.model import Container, Observed
from pilothouse_server.containers.observation import (
    REPAIRED,
    WINDING_DOWN,
    observe,
    scaled_to_zero,
    until_all_ready,
)
from pilothouse_server.containers.rollout import applied_rollout, forget_state
from pilothouse_server.containers.stability import applied_stability
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.importing import drift_adoption
from pilothouse_server.kubernetes import warnings
from pilothouse_server.kubernetes.conditions import APPLIED, WARNED, set_condition, warned
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import WorkloadObject
from pilothouse_server.reconcile.apply import container_actions
from pilothouse_server.reconcile.apply.container_actions import ContainerProgress
from pilothouse_server.reconcile.apply.drift import NOTHING
from pilothouse_server.reconcile.apply.row_reconciler import (
    AGAIN_SECONDS,
    WAITING_FOR_NAMESPACE,
    RowReconciler,
    dealt_with,
    failed,
    namespace_retry_seconds,
    waiting,
)
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import LOST, Done, Result
from pilothouse_server.reconcile.repository import (
    applied_containers,
    applied_objects,
    config_status,
    container_status,
    namespace_status,
)
from pilothouse_server.reconcile.repository.applied_containers import Applied
from pilothouse_server.reconcile.repository.container_status import Change
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction
from pilothouse_server.values.resources import Condition

_CONFIGURATION_AGAIN_SECONDS = 0.1


class LoadedContainer(msgspec.Struct, frozen=True):
    """A container and the facts that `act` needs.

    `namespace_ready`: the namespace was applied to the cluster before; `namespace_lost`: it is not ours any more.
    `namespace_adopting`: its adoption is requested, and it may have been ours before. `namespace_unverified`: another
    owner may have it by now, and nothing of the container was put there yet. `namespace_refusal`: why the cluster
    refuses the namespace.

    `configuration_ready`: the config maps and secrets that the container reads are applied. `untouched`: no worker has
    ever acted on it, so nothing of it can be on the cluster; see `container_actions.make`. `read`: when it was read, by
    the database's clock and by our monotonic one. `noted`: the fingerprints of its objects at the last apply.
    """

    container: Container
    namespace_ready: bool
    service_account_shared: bool
    read: tuple[datetime, float]
    configuration_ready: bool = True
    untouched: bool = False
    namespace_lost: bool = False
    namespace_adopting: bool = False
    namespace_unverified: bool = False
    namespace_refusal: Condition | None = None
    noted: Mapping[str, str] = NOTHING

    @property
    def now(self) -> datetime:
        """The time by the database's clock, computed without a query."""
        at, since = self.read
        return at + timedelta(seconds=monotonic() - since)


class ContainerReconciler(RowReconciler[Container, LoadedContainer, ContainerProgress]):
    """Applies and deletes workloads, Services and service accounts."""

    batch_size: ClassVar[int] = 32
    # Values that are read after the containers may be newer than the containers. That does no harm, because any change
    # makes their work due again.
    in_snapshot: ClassVar[bool] = False

    def __init__(self, rules: DriftRules = DEFAULT_RULES) -> None:
        self._rules = rules

    async def load(
        self, transaction: ReadTransaction, works: Sequence[Work]
    ) -> Mapping[Work, LoadedContainer]:
        """Returns the containers in their desired state.

        Most facts are read for all of them together.
        """
        found = await container_status.find_placed(transaction, [work.resource_id for work in works])
        waiting_ids = await config_status.those_that_wait(
            transaction, [each.container for each in found.values()]
        )
        since = monotonic()
        not_ready = {
            int(each.container.namespace_id)
            for each in found.values()
            if each.namespace_lost or not each.namespace_applied
        }
        refusals = await namespace_status.refusals(transaction, not_ready)
        before = [work.resource_id for work in works if work.lease_epoch > 1]
        noted = await applied_objects.of_resources(transaction, "container", before) if before else {}
        loaded = {}
        for work in works:
            if work.resource_id not in found:
                continue
            placed = found[work.resource_id]
            container = placed.container
            loaded[work] = LoadedContainer(
                container,
                namespace_ready=placed.namespace_applied,
                namespace_lost=placed.namespace_lost,
                namespace_adopting=placed.namespace_adopting,
                # Failed work and the cluster's observers may have waited for long: another owner may have the
                # namespace by now.
                namespace_unverified=placed.namespace_unverified
                or (work.attempts > 0 and container.observed_generation == 0),
                read=(placed.read_at, since),
                service_account_shared=container.deletion_requested_at is not None
                and bool(container.spec.service_account)
                and await container_status.service_account_used_by_others(transaction, container),
                configuration_ready=work.resource_id not in waiting_ids,
                # The epochs of a resource never restart while it lives.
                untouched=work.lease_epoch == 1
                and container.observed_generation == 0
                and not container.imported,
                namespace_refusal=refusals.get(int(container.namespace_id)),
                noted=noted.get(work.resource_id, NOTHING),
            )
        return loaded

    async def act(self, client: LeasedClient, loaded: LoadedContainer) -> ContainerProgress:
        """Applies the container to the cluster or deletes it there. Raises ClusterError, LeaseLost."""
        container = loaded.container
        if container.deletion_requested_at is not None:
            if not loaded.namespace_ready and not loaded.namespace_adopting:
                # It was never applied there: objects with its names belong to another owner.
                return ContainerProgress(gone=True)
            return await container_actions.delete(
                client, container, keep_service_account=loaded.service_account_shared
            )
        if loaded.namespace_lost or not loaded.namespace_ready:
            # The namespace's own work creates it; the container is applied after that.
            namespace_not_ready = loaded.namespace_refusal or WAITING_FOR_NAMESPACE
            return ContainerProgress(
                conditions=(namespace_not_ready,), again_seconds=namespace_retry_seconds(namespace_not_ready)
            )
        if not loaded.configuration_ready:
            # Pods that start before would read the former values.
            return ContainerProgress(
                conditions=(
                    waiting(
                        "WaitingForConfiguration",
                        "a config map, secret or service account that it uses is not applied yet",
                    ),
                ),
                again_seconds=_CONFIGURATION_AGAIN_SECONDS,
            )
        if loaded.namespace_unverified:
            # Only in doubt: most namespaces are known to be ours, and a new container should cost few requests.
            await client.check_namespace_ownership(container.namespace_ref)
        with warnings.noted() as collected:
            made = await container_actions.make(client, container) if loaded.untouched else None
            done = made or await container_actions.apply(client, container, loaded.noted, self._rules)
        return _with_warnings(container, done, collected)

    async def write_batch(
        self,
        store: Store,
        dones: Sequence[Done[LoadedContainer, ContainerProgress]],
        resync: Callable[[], float],
    ) -> Mapping[Work, Result]:
        """Writes results of plain applies, of containers that nobody has changed since they were loaded."""
        simple = [
            (done, done.outcome)
            for done in dones
            if isinstance(done.outcome, ContainerProgress) and _follows_from_loaded(done.loaded, done.outcome)
        ]
        if not simple:
            return {}
        now = max(done.loaded.now for done, _ in simple)
        found = await applied_containers.write(
            store,
            [
                Applied(
                    done.work,
                    _after_success(done.loaded.container, done.loaded, progress, now),
                    resync(),
                    progress.objects,
                )
                for done, progress in simple
            ],
            now,
        )
        written = {
            done.work: Result(applied=_applied_generation(progress))
            for done, progress in simple
            if done.work.resource_id in found.written
        }
        return written | {done.work: LOST for done, _ in simple if done.work.resource_id in found.lost}

    async def lock(
        self,
        transaction: Transaction,
        dones: Sequence[Done[LoadedContainer, ContainerProgress]],
        *,
        wait: bool,
    ) -> Mapping[int, Container]:
        """Locks rows in the order of their ids."""
        found = {done.work.resource_id: done.loaded.container for done in dones}
        return await container_status.lock_found(transaction, found, wait=wait)

    async def write_error(
        self,
        transaction: Transaction,
        row: Container,
        loaded: LoadedContainer,
        error: ClusterError,
        attempts: int,
    ) -> None:
        """Writes a refusal, or a failure that occurred more than once."""
        refused = error.outlook == "refused"
        if not refused and attempts == 0:
            # A first failure is not written: most transient failures are over at the second attempt.
            return
        change = _after_error(row, loaded, error, refused=refused, now=transaction.now)
        await container_status.write(transaction, [change], "system")

    async def write_deleted(self, transaction: Transaction, row: Container) -> Result:
        """Deletes the row, with its tombstone event."""
        await container_status.delete(transaction, row)
        return Result(removed=True)

    async def write_progress(
        self,
        transaction: Transaction,
        progresses: Sequence[tuple[Container, LoadedContainer, ContainerProgress]],
    ) -> Sequence[Result]:
        """Writes whether the containers are applied, and adopts drift if their policy says so."""
        changes = [
            _after_success(row, loaded, progress, transaction.now)
            for row, loaded, progress in progresses
            if row.deletion_requested_at is None
        ]
        written = {each.id: each for each in await container_status.write(transaction, changes, "system")}
        results = []
        for row, loaded, progress in progresses:
            again = progress.again_seconds
            if row.deletion_requested_at is not None:
                results.append(Result(again_seconds=AGAIN_SECONDS if again is None else again))
                continue
            if progress.adoption is not None and row.generation == loaded.container.generation:
                # Only without a newer request; with one, its reconciliation finds the changes by others again.
                adoption, stored = progress.adoption, written.get(row.id, row)
                await drift_adoption.store(transaction, stored, adoption.wanted, adoption.description)
            results.append(Result(again_seconds=again, applied=_applied_generation(progress)))
        return results


def _with_warnings(
    container: Container, done: ContainerProgress, collected: Collection[str]
) -> ContainerProgress:
    """Returns the progress with the warnings of its applies.

    The absence of warnings is recorded only if there were some before.
    """
    before = any(each.type == WARNED for each in container.observed.conditions)
    # If everything matches, nothing is applied, and the warnings of the last apply stay.
    applied = done.workload is not None and container.observed_generation < container.generation
    if not collected and not (before and applied):
        return done
    return msgspec.structs.replace(done, conditions=(*done.conditions, warned(collected)))


def _follows_from_loaded(loaded: LoadedContainer, progress: ContainerProgress) -> bool:
    """Returns whether the result follows from the loaded values, as long as the row is unchanged."""
    container = loaded.container
    return (
        not progress.gone
        and progress.again_seconds is None
        and progress.adoption is None
        and not progress.history
        and container.deletion_requested_at is None
        # Its message about volumes may change without a change of its own row.
        and not container.volumes
    )


def _applied_generation(progress: ContainerProgress) -> tuple[str, int] | None:
    metadata = progress.workload.metadata if progress.workload else None
    return (metadata.uid, metadata.generation) if metadata and metadata.uid else None


def _after_success(
    container: Container, loaded: LoadedContainer, progress: ContainerProgress, now: datetime
) -> Change:
    before, type_ = container, workload_type(container)
    if progress.went_back:
        before = _with_conditions(container, forget_state(container.observed.conditions))
    conditions = before.observed.conditions
    for condition in progress.conditions:
        if condition.type == REPAIRED:
            # Removed first, so that each repair counts as a new transition to True.
            conditions = tuple(each for each in conditions if each.type != REPAIRED)
        conditions = set_condition(conditions, condition, now)
    subject = _with_conditions(container, conditions)
    workload = progress.workload
    observed = _without_refusal(container, subject.observed)
    if workload is None:
        observed = observe(subject, None, now=now).observed
    elif not type_.scheduled and workload.replicas == workload.status.replicas == 0 and _has_none(subject):
        # Only the observer sees the runs of a CronJob.
        observed = observe(subject, workload, now=now).observed
        if container.observed.reason in WINDING_DOWN:
            # The workload no longer counts pods that are terminating; the observer sees them.
            reason, message = container.observed.reason, container.observed.message
            observed = msgspec.structs.replace(observed, reason=reason, message=message)
    if workload is not None and type_.rolls_out:
        observed = _with_rollout(before, observed, workload, now)
    generation = container.observed_generation
    if progress.again_seconds is None:
        generation = dealt_with(container, loaded.container.generation)
    return Change(container, observed, generation, warnings=progress.history)


def _has_none(container: Container) -> bool:
    """Returns whether the container is meant to have no pods."""
    return container.wanted_replicas == 0 or scaled_to_zero(container) is not None


def _with_rollout(
    container: Container, observed: Observed, workload: WorkloadObject, now: datetime
) -> Observed:
    """Returns the state with the rollout of the applied generation.

    Without it the generation would seem rolled out until the observer sees it.
    """
    observed = until_all_ready(observed, workload.replicas)
    rollout = applied_rollout(container, workload)
    if rollout is None:
        return observed
    conditions = set_condition(observed.conditions, rollout, now)
    if (stable := applied_stability(container, workload, now)) is not None:
        conditions = set_condition(conditions, stable, now)
    observed = msgspec.structs.replace(observed, conditions=conditions)
    if rollout in container.observed.conditions or rollout.status == "True" or observed.status != "running":
        return observed
    return msgspec.structs.replace(observed, reason=rollout.reason, message=rollout.message)


def _after_error(
    container: Container, loaded: LoadedContainer, error: ClusterError, *, refused: bool, now: datetime
) -> Change:
    condition = failed(error, refused=refused)
    subject = _with_conditions(container, set_condition(container.observed.conditions, condition, now))
    observed = subject.observed
    if not container.observed.deployment_name and container.deletion_requested_at is None:
        observed = observe(subject, None, now=now).observed
    generation = container.observed_generation
    if refused:
        generation = dealt_with(container, loaded.container.generation)
    return Change(container, observed, generation)


def _with_conditions(container: Container, conditions: tuple[Condition, ...]) -> Container:
    return msgspec.structs.replace(
        container, observed=msgspec.structs.replace(container.observed, conditions=conditions)
    )


def _without_refusal(before: Container, observed: Observed) -> Observed:
    """Returns the status without the message of a refusal that is over.

    The observer writes the new one.
    """
    old = next((c for c in before.observed.conditions if c.type == APPLIED and c.status != "True"), None)
    now_applied = any(c.type == APPLIED and c.status == "True" for c in observed.conditions)
    if old is None or not now_applied or (observed.reason, observed.message) != (old.reason, old.message):
        return observed
    status = "pending" if observed.status == "failed" else observed.status
    return msgspec.structs.replace(observed, status=status, reason="", message="")
