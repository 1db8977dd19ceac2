"""The reconciler of one server: workers, and a candidate for observing each cluster.

Workers run on every server. For each cluster one server at a time, the leader, observes it, measures its containers and
sweeps it. Every server reads the clusters' rows every few seconds: it opens and closes clients as clusters are
registered and deregistered, and reconnects when credentials change. A failure in one cluster's task does not reach the
tasks of other clusters.
"""

from __future__ import annotations

import asyncio
import os
import socket
from uuid import uuid4

import msgspec
import structlog

from pilothouse_server.clusters.operations import deregistration
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.reconcile.observe.autoscalers import Autoscalers
from pilothouse_server.reconcile.observe.claim_observer import ClaimObserver, ClaimObserverSettings
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster
from pilothouse_server.reconcile.observe.comparison import Comparison, ComparisonSettings
from pilothouse_server.reconcile.observe.container_observer import (
    ContainerObserver,
    ContainerObserverSettings,
)
from pilothouse_server.reconcile.observe.dependent_observer import (
    DependentObserver,
    DependentObserverSettings,
)
from pilothouse_server.reconcile.observe.health import Health, HealthSettings
from pilothouse_server.reconcile.observe.object_observer import ObjectObserver, ObjectObserverSettings
from pilothouse_server.reconcile.observe.service_observer import ServiceObserver, ServiceObserverSettings
from pilothouse_server.reconcile.observe.sweep import Sweep, SweepSettings
from pilothouse_server.reconcile.observe.usage import UsageCollector, UsageSink
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.backoff import after_error
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.leadership import (
    FREE_SECONDS,
    LEASE_SECONDS,
    CannotLead,
    StandingBack,
    lead,
)
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.queue.worker import Reconcilers, Worker, WorkerSettings
from pilothouse_server.reconcile.repository import cluster_status
from pilothouse_server.reconcile.repository.leases import Lease
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.reconciled import OBSERVE
from pilothouse_server.store.unit_of_work import ReadTransaction, Store

log = structlog.get_logger(__name__)


class ReconcilerSettings(msgspec.Struct, frozen=True):
    """Times in seconds; each class describes its own."""

    worker: WorkerSettings = WorkerSettings()
    containers: ContainerObserverSettings = ContainerObserverSettings()
    claims: ClaimObserverSettings = ClaimObserverSettings()
    dependents: DependentObserverSettings = DependentObserverSettings()
    services: ServiceObserverSettings = ServiceObserverSettings()
    objects: ObjectObserverSettings = ObjectObserverSettings()
    comparison: ComparisonSettings = ComparisonSettings()
    health: HealthSettings = HealthSettings()
    sweep: SweepSettings = SweepSettings()
    usage_period_seconds: float = 10.0
    autoscalers_period_seconds: float = 60.0
    clusters_period_seconds: float = 2.0
    lease_seconds: float = LEASE_SECONDS
    # The interval at which one server tries a cluster that no server reaches.
    free_seconds: float = FREE_SECONDS


class Reconciler:
    """The tasks of one server.

    `run` works until cancelled; nothing must be closed afterwards.
    """

    def __init__(
        self,
        store: Store,
        clients: ClusterClients,
        usage_sink: UsageSink | None,
        settings: ReconcilerSettings = ReconcilerSettings(),  # noqa: B008 - immutable
        *,
        reconcilers: Reconcilers,
    ) -> None:
        self._store = store
        self._clients = clients
        self._usage_sink = usage_sink
        self._settings = settings
        self._applied_generations = AppliedGenerations()
        # Unique to the process: a restarted server must not treat its own old lease as held. `clusters list` shows the
        # part before the slash as the leader.
        self._owner = f"{socket.gethostname()[:50]}:{os.getpid()}/{uuid4().hex}"
        self._anew = False
        self.worker = Worker(
            store, clients, self._applied_generations, settings.worker, reconcilers=reconcilers
        )

    def wake(self) -> None:
        """Makes the worker check for work now: a transaction has committed."""
        self.worker.wake()

    def reset_after_rewind(self) -> None:
        """Makes the next pass reconnect to every cluster and observe it again (reset after rewind)."""
        self._anew = True

    def leaves(self, cluster_name: str) -> bool:
        """Returns whether another server does a cluster's work, since this one cannot reach it."""
        return cluster_name in self._clients.left()

    async def run(self) -> None:
        """Reconciles and observes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.worker.run(), name="reconcile")
            group.create_task(self._follow_clusters(group), name="clusters")

    async def _follow_clusters(self, group: asyncio.TaskGroup) -> None:
        tasks: dict[str, asyncio.Task[None]] = {}
        connected: dict[str, str] = {}
        while True:
            try:
                async with self._store.system_call() as connection:
                    registered = await cluster_status.registered(ReadTransaction(connection))
                self._clients.report(registered.away)
                if registered.some_end:
                    await deregistration.finish(self._store)
            except PilothouseError as error:
                log.warning("clusters cannot be read", reason=error.reason)
            else:
                versions = registered.versions
                if self._anew:
                    self._anew, connected = False, dict.fromkeys(connected, "")
                for name in [name for name in tasks if versions.get(name) != connected[name]]:
                    # Deleted, or with new credentials: every task that uses the old client must end first.
                    await cancel_and_wait(tasks.pop(name))
                    self._clients.forget(name)
                for name in versions.keys() - tasks.keys():
                    # A call may have connected before, with other credentials than this version's.
                    self._clients.forget(name)
                    tasks[name] = group.create_task(self._candidate(name), name=f"cluster {name}")
                    connected[name] = versions[name]
            await asyncio.sleep(self._settings.clusters_period_seconds)

    async def _candidate(self, name: str) -> None:
        settings = self._settings
        await lead(
            self._store,
            OBSERVE + name,
            self._owner,
            lambda lease: self._serve(name, lease),
            seconds=settings.lease_seconds,
            standing_back=StandingBack(
                can_lead=lambda: self._clients.is_reached(name, settings.health.answer_seconds),
                led_elsewhere=lambda elsewhere: self._led_elsewhere(name, elsewhere=elsewhere),
                look_seconds=settings.health.probe_seconds,
                free_seconds=settings.free_seconds,
            ),
        )

    async def _led_elsewhere(self, name: str, *, elsewhere: bool) -> None:
        self._clients.led_elsewhere(name, elsewhere=elsewhere)
        if self.leaves(name):
            # No other task of this server checks whether it reaches the cluster again.
            await self._clients.is_reached(name, self._settings.health.answer_seconds)

    async def _serve(self, name: str, lease: Lease) -> None:
        """Runs the health checks and the observers of a cluster.

        Raises LeaseLost, CannotLead.
        """
        health = Health(self._store, self._clients, name, lease, self._settings.health)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(health.run(), name=f"health {name}")
                group.create_task(self._observe(name, lease), name=f"observe {name}")
        except BaseExceptionGroup as failed:
            if failed.subgroup(LeaseLost) is not None:
                raise LeaseLost from None
            if (unable := failed.subgroup(CannotLead)) is not None:
                raise CannotLead(str(unable.exceptions[0])) from None
            raise

    async def _observe(self, name: str, lease: Lease) -> None:
        cluster = LeasedCluster(name, self._store, await self._connected(name), lease)
        settings = self._settings
        containers = ContainerObserver(cluster, self._applied_generations, settings.containers)
        dependents = DependentObserver(cluster, settings.dependents)
        services = ServiceObserver(cluster, dependents, settings.services)
        objects = ObjectObserver(cluster, self._applied_generations, settings.objects)
        services.on_written = objects.services_changed
        compared_ones = (containers, ClaimObserver(cluster, settings.claims), dependents, services)
        compared = {kind: informer for each in compared_ones for kind, informer in each.compared.items()}
        comparison = Comparison(cluster, compared, settings.comparison)
        async with asyncio.TaskGroup() as group:
            for observer in (*compared_ones, objects, comparison):
                group.create_task(observer.run(), name=f"observe {observer.subject} of {name}")
            group.create_task(Sweep(containers, objects, settings.sweep).run(), name=f"sweep {name}")
            autoscalers = Autoscalers(cluster, settings.autoscalers_period_seconds)
            group.create_task(autoscalers.run(), name=f"autoscalers of {name}")
            if self._usage_sink is not None:
                usage = UsageCollector(containers, self._usage_sink, settings.usage_period_seconds)
                group.create_task(usage.run(), name=f"usage {name}")

    async def _connected(self, name: str) -> ClusterClient:
        attempts = 0
        while True:
            try:
                return await self._clients.client(name)
            except ClusterError as error:
                attempts += 1
                await asyncio.sleep(after_error(error, attempts))
