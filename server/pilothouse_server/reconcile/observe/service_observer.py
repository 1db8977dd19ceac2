"""Watches the endpoints of Services on one cluster, and writes the observed state of our Services.

The observer of dependents watches the Services and passes them on. EndpointSlices carry the labels of their Service,
including ours, so one watch by our label shows only the slices of our Services. On a cluster that denies the slices,
the addresses are still observed; the endpoints then stay 0.

In batches the marked Services are locked, loaded, observed (a pure function) and written, with their events, in one
transaction under the observer's lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from pilothouse_server.kubernetes.objects import ENDPOINT_SLICES, EndpointSlice, Service
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.network.model import ObservedService
from pilothouse_server.network.observation import observe
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster, StatusObserver
from pilothouse_server.reconcile.observe.cluster_view import labelled_uid
from pilothouse_server.reconcile.observe.dependent_observer import DependentObserver
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.observe.schedule import Schedule
from pilothouse_server.reconcile.repository import service_status, work_queue
from pilothouse_server.reconcile.repository.observed_rows import ObservedChange
from pilothouse_server.store.unit_of_work import ReadTransaction


class ServiceObserverSettings(msgspec.Struct, frozen=True):
    """Times in seconds. `gather_seconds`: how long changes are gathered before they are written together.

    `endpoint_seconds`: how long changes of endpoints are gathered; a rollout makes many.
    """

    batch: int = 100
    gather_seconds: float = 0.05
    endpoint_seconds: float = 0.5
    locked_again_seconds: float = 0.2


async def _nobody(_namespace_ids: set[int]) -> None:
    """Does nothing: the default while nothing follows the Services."""


def _is_news(change: ObservedChange[Any, ObservedService]) -> bool:
    """Returns whether a Service has got its first ready endpoint or lost its last one."""
    before: ObservedService = change.resource.observed
    return (before.ready_endpoints > 0) != (change.observed.ready_endpoints > 0)


class ServiceObserver(StatusObserver):
    """The observer of one cluster's Services under one lease.

    `run` works until cancelled; raises LeaseLost.
    """

    subject = "services"

    def __init__(
        self,
        cluster: LeasedCluster,
        dependents: DependentObserver,
        settings: ServiceObserverSettings = ServiceObserverSettings(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(cluster, gather_seconds=settings.gather_seconds)
        self._settings = settings
        self._services = dependents.services
        dependents.on_service = self._service_changed
        # Called with the namespaces in which a Service has become ready or unready, after that is written.
        self.on_written: Callable[[set[int]], Awaitable[None]] = _nobody
        self._slices = self.informer(ENDPOINT_SLICES, self._slice_changed, SERVICE_UID)
        # Slices by the uid of their Service and by name.
        self._slices_of: dict[str, dict[str, EndpointSlice]] = {}
        # The uid of the container that owns a Service, by that of the Service.
        self._owner_of: dict[str, str] = {}
        self._schedule = Schedule(self._wake.set)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts the informer of slices and the loop that writes; `dependents` watches the Services."""
        group.create_task(self._slices.run(), name=self.task_name("inform"))
        group.create_task(self._write_loop(), name=self.task_name("observe"))

    @property
    def compared(self) -> dict[str, Informer[Any]]:
        """The objects to compare with the last apply, by kind: none, because `dependents` has them."""
        return {}

    def informers(self) -> Sequence[Informer[Any]]:
        """Returns the informer of Services."""
        return (self._services,)

    async def uids(self, transaction: ReadTransaction) -> Iterable[str]:
        """Returns the uids of all Services on the cluster."""
        return await service_status.SERVICES.of_cluster(transaction, self.cluster.name)

    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None:
        """Schedules a check of a Service."""
        self._schedule.mark(uid, in_seconds=in_seconds)

    def seconds_to_next(self) -> float | None:
        """Returns the seconds until the next check; None if none is scheduled."""
        return self._schedule.seconds_to_next()

    async def write_due(self) -> None:
        """Writes the Services that are due. Raises LeaseLost, PilothouseError."""
        while uids := self._schedule.take(self._settings.batch):
            await self.write(uids)

    async def write_batch(self, uids: list[str]) -> None:
        """Locks the free rows, and writes differences. Raises LeaseLost, PilothouseError."""
        async with self.cluster.transaction() as transaction:
            locked = await service_status.SERVICES.lock_free_uids(transaction, self.cluster.name, uids)
            changes, gone = [], []
            for service in locked:
                found = self._services.objects.get((service.kubernetes_namespace, service.name))
                if found is not None and found.metadata.label(SERVICE_UID) != service.uid:
                    found = None
                slices = (
                    self._slices_of.get(service.uid, {}).values() if self._slices.synced.is_set() else None
                )
                shown = observe(service, found, slices)
                changes.append(ObservedChange(service, shown, service.observed_generation))
                if found is None and service.deletion_requested_at is not None and not service.owner:
                    gone.append(("service", service.id))
            await work_queue.requeue(transaction, gone)
            await service_status.SERVICES.write(transaction, changes)
            left = sorted(set(uids) - {service.uid for service in locked})
            known = await self._known(transaction, left) if left else set()
        if changed := {int(each.resource.namespace_id) for each in changes if _is_news(each)}:
            await self.on_written(changed)
        for uid in known:
            self.mark(uid, in_seconds=self._settings.locked_again_seconds)

    async def _known(self, transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
        """Returns those of `uids` that have a row, or will get one.

        A Service gets one soon if its container has changed and the Services of that are not written yet.
        """
        owners = {uid: owner for uid in uids if (owner := self._owner_of.get(uid)) is not None}
        changing = (
            await service_status.changing_owners(transaction, sorted(set(owners.values())))
            if owners
            else set()
        )
        # Read last: if the query above found nothing left to write, the rows exist by now.
        there = await service_status.SERVICES.there(transaction, self.cluster.name, uids)
        return {*there} | {uid for uid, owner in owners.items() if owner in changing}

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if old is not None and (uid := labelled_uid(old, SERVICE_UID)) is not None:
            self._owner_of.pop(uid, None)
        if new is not None and (uid := labelled_uid(new, SERVICE_UID)) is not None:
            owner = labelled_uid(new, CONTAINER_UID)
            if owner is not None:
                self._owner_of[uid] = owner
        for uid in {labelled_uid(each, SERVICE_UID) for each in (old, new) if each is not None}:
            if uid is not None:
                self.mark(uid)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for there in (old, new):
            uid = None if there is None else labelled_uid(there, SERVICE_UID)
            if there is None or uid is None:
                continue
            slices = self._slices_of.setdefault(uid, {})
            if there is new:
                slices[there.metadata.name] = there
            else:
                slices.pop(there.metadata.name, None)
                if not slices:
                    del self._slices_of[uid]
            self.mark(uid, in_seconds=self._settings.endpoint_seconds)
