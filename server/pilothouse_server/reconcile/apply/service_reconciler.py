"""Standalone Services on their clusters.

`container_actions` applies the Services that containers own.

The worker writes the result of the apply (the conditions `Applied` and `Drifted`, the observed generation);
`service_observer` writes addresses and endpoints.

A Service is ours if it carries the uid of our row, or is the object that an import took over. Any other Service of the
same name is left alone (`NameTaken`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec

from pilothouse_server.containers.drift_rules import DriftRules
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.conditions import APPLIED, set_condition
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import SERVICES
from pilothouse_server.kubernetes.objects import Service as ServiceObject
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.repository import get as get_namespace
from pilothouse_server.network import adoption, guarding, manifests, operations, repository
from pilothouse_server.network.model import Service
from pilothouse_server.network.observation import observe
from pilothouse_server.network.operations import ServiceRights
from pilothouse_server.reconcile.apply import service_writer
from pilothouse_server.reconcile.apply.drift import NOTHING, Drift
from pilothouse_server.reconcile.apply.row_reconciler import (
    AGAIN_SECONDS,
    OneByOne,
    change_of_failure,
    dealt_with,
    namespace_retry_seconds,
    read_namespace_not_ready,
    waiting,
)
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import Progress, Result
from pilothouse_server.reconcile.repository import applied_objects, service_status
from pilothouse_server.reconcile.repository.observed_rows import ObservedChange
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

_GONE_AGAIN_SECONDS = 0.05


class LoadedService(msgspec.Struct, frozen=True):
    """`namespace_not_ready`: why its namespace is not on the cluster; None if it is.

    `noted`: fingerprints of the last apply.
    """

    service: Service
    namespace: Namespace
    namespace_not_ready: Condition | None
    noted: Mapping[str, str] = NOTHING


class ServiceProgress(Progress, frozen=True):
    """`found`: the object as `act` left it. `adopted`: the Service with values of others that become desired."""

    conditions: tuple[Condition, ...] = ()
    found: ServiceObject | None = None
    adopted: Service | None = None


class ServiceReconciler(OneByOne[Service, LoadedService, ServiceProgress]):
    """Applies and deletes standalone Services."""

    def __init__(self, rights: ServiceRights, rules: DriftRules) -> None:
        """Takes the `rights` that limit which values ADOPT may make desired."""
        self._rights = rights
        self._rules = rules

    async def load_one(self, transaction: ReadTransaction, work: Work) -> LoadedService | None:
        """Returns the Service in its desired state; None if it is deleted, or a container owns it."""
        service = await service_status.SERVICES.get(transaction, work.resource_id)
        if service is None or service.owner:
            return None
        going = service.deletion_requested_at is not None
        namespace = await get_namespace(transaction, service.namespace_id)
        if namespace is None:
            return None
        namespace_not_ready = await read_namespace_not_ready(transaction, namespace, going=going)
        noted = await applied_objects.of_resources(transaction, "service", [service.id])
        return LoadedService(service, namespace, namespace_not_ready, noted.get(service.id, NOTHING))

    async def act(self, client: LeasedClient, loaded: LoadedService) -> ServiceProgress:
        """Applies the Service to the cluster or deletes it there. Raises ClusterError, LeaseLost."""
        if loaded.service.deletion_requested_at is not None:
            if loaded.namespace_not_ready is not None:
                # The Service was never applied or taken over there: one with its name belongs to another owner.
                return ServiceProgress(gone=True)
            return await _delete(client, loaded.service)
        if (namespace_not_ready := loaded.namespace_not_ready) is not None:
            # The namespace's own work creates it; the Service is applied after that.
            return ServiceProgress(
                conditions=(namespace_not_ready,), again_seconds=namespace_retry_seconds(namespace_not_ready)
            )
        return await self._apply(client, loaded)

    async def lock_one(self, transaction: Transaction, resource_id: int) -> Service | None:
        """Locks and returns the row; None if it is deleted."""
        return await service_status.SERVICES.get(transaction, resource_id, lock=True)

    async def write_error(
        self,
        transaction: Transaction,
        row: Service,
        loaded: LoadedService,
        error: ClusterError,
        attempts: int,
    ) -> None:
        """Writes a refusal, or a failure that occurred more than once."""
        change = change_of_failure(transaction, row, error, attempts, loaded.service.generation)
        if change is not None:
            await service_status.SERVICES.write(transaction, [change])

    async def write_deleted(self, transaction: Transaction, row: Service) -> Result:
        """Deletes the row, with its tombstone event."""
        await service_status.delete(transaction, row)
        return Result(removed=True)

    async def write_one(
        self, transaction: Transaction, row: Service, loaded: LoadedService, progress: ServiceProgress
    ) -> Result:
        """Writes whether the Service is applied, and adopts drift if its policy says so."""
        again = progress.again_seconds
        if row.deletion_requested_at is not None:
            return Result(again_seconds=AGAIN_SECONDS if again is None else again)
        conditions = row.observed.conditions
        for condition in progress.conditions:
            conditions = set_condition(conditions, condition, transaction.now)
        generation = row.observed_generation
        if again is None or any(each.status == "False" for each in progress.conditions[:1]):
            generation = dealt_with(row, loaded.service.generation)
        observed = observe(row, progress.found, None, conditions)
        if progress.adopted is not None and row.generation == loaded.service.generation:
            # Only without a newer request; with one, its reconciliation finds the changes by others again.
            row = await _store_adopted(transaction, row, progress.adopted)
            generation = row.generation
        await service_status.SERVICES.write(transaction, [ObservedChange(row, observed, generation)])
        return Result(again_seconds=again)

    async def _apply(self, client: LeasedClient, loaded: LoadedService) -> ServiceProgress:
        service = loaded.service
        found = await client.find(SERVICES, service.kubernetes_namespace, service.name)
        manifests.check_ours(service, found)
        if found is None:
            # Another installation may own the namespace by now.
            await client.check_namespace_ownership(service.namespace_ref)
        elif found.metadata.deletion_timestamp is not None:
            # Another client is deleting it; an apply would succeed and be lost.
            deleting = waiting("Deleting", "the Service is being deleted")
            return ServiceProgress(conditions=(deleting,), found=found, again_seconds=AGAIN_SECONDS)
        wanted = manifests.manifest(service)
        settled = service.observed_generation >= service.generation
        drift = Drift(
            service, guarding.may_be_sent(service), settled=settled, noted=loaded.noted, rules=self._rules
        )
        applied = Condition(APPLIED, "True", "Applied")
        if found is not None and settled and await drift.is_untouched(client, SERVICES, wanted):
            return ServiceProgress(
                conditions=(applied, drift.condition()),
                found=found,
                objects=fingerprints.by_object((SERVICES, found)),
            )
        written = await service_writer.write(client, service.namespace_ref, wanted, found, drift)
        adopted = await _adopted(client, service, drift, partial(self._rights.check, loaded.namespace))
        return ServiceProgress(
            conditions=(applied, drift.condition()),
            found=written,
            objects=fingerprints.by_object((SERVICES, written)),
            adopted=adopted,
        )


async def _delete(client: LeasedClient, service: Service) -> ServiceProgress:
    found = await client.find(SERVICES, service.kubernetes_namespace, service.name)
    if found is None or not manifests.is_ours(service, found):
        return ServiceProgress(gone=True)
    if found.metadata.deletion_timestamp is not None:
        return ServiceProgress(again_seconds=AGAIN_SECONDS)
    home = service.namespace_ref
    uid = found.metadata.uid
    await client.delete(SERVICES, home, service.name, uid=uid, propagation="Background")
    return ServiceProgress(again_seconds=_GONE_AGAIN_SECONDS)


async def _adopted(
    client: LeasedClient, service: Service, drift: Drift, allowed: adoption.Allowed
) -> Service | None:
    """Returns the desired values after the adoption of drift.

    Adopted fields no longer count as drift.

    Raises ClusterError.
    """
    if drift.policy != "adopt" or not drift.kept:
        return None
    live = await client.read(SERVICES, service.kubernetes_namespace, service.name)
    wanted = adoption.adopt(service, live, [difference.field for difference in drift.kept], allowed)
    taken = [each for each in drift.kept if adoption.is_adopted(wanted, live, each.field)]
    drift.adopted += [str(difference) for difference in taken]
    drift.kept = [difference for difference in drift.kept if difference not in taken]
    return None if wanted == service else wanted


async def _store_adopted(transaction: Transaction, stored: Service, there: Service) -> Service:
    """Writes the desired values of `there` as the next generation of `stored`.

    `stored` is locked. Work is enqueued.
    """
    wanted = msgspec.structs.replace(
        stored, type=there.type, spec=there.spec, labels=there.labels, annotations=there.annotations
    )
    if wanted == stored:
        return stored
    written = await repository.update_service(transaction, stored, wanted)
    await operations.changed(transaction, written, "modified", stored)
    return written
