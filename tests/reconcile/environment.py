"""A database, a simulated cluster and the reconciler between them; changes go through the nouns' own rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.clusters.operations import registration
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers.drift_rules import DEFAULT_RULES, DriftRules
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.operations import change as change_container
from pilothouse_server.containers.operations import create as create_container
from pilothouse_server.containers.operations import delete as delete_container
from pilothouse_server.containers.operations import delete_all as delete_containers
from pilothouse_server.containers.operations import forget_all as forget_containers
from pilothouse_server.containers.operations import held as held_containers
from pilothouse_server.containers.quota import quota_usage
from pilothouse_server.containers.repository import find as find_container_row
from pilothouse_server.guard.model import UNGUARDED
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.transport import TransportLimits
from pilothouse_server.metrics.model import UsageSample
from pilothouse_server.namespaces.contents import Contents
from pilothouse_server.namespaces.guarded import Guarded, Labelling
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import Rights
from pilothouse_server.namespaces.operations import create as create_namespace
from pilothouse_server.namespaces.operations import delete as delete_namespace
from pilothouse_server.namespaces.repository import find as find_namespace_row
from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler
from pilothouse_server.reconcile.apply.namespace_reconciler import NamespaceReconciler
from pilothouse_server.reconcile.observe.container_observer import ContainerObserverSettings
from pilothouse_server.reconcile.observe.dependent_observer import DependentObserverSettings
from pilothouse_server.reconcile.observe.health import HealthSettings
from pilothouse_server.reconcile.observe.sweep import SweepSettings
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.worker import Reconcilers, WorkerSettings
from pilothouse_server.reconcile.reconciler import Reconciler, ReconcilerSettings
from pilothouse_server.rpc.noun import InNamespaces
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import Settings
from pilothouse_server.store import engine
from pilothouse_server.store.rendered import Rendered
from pilothouse_server.store.unit_of_work import Store, Transaction
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.resources import NamespaceId
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database, number_changes
from tests.kubernetes.containers import container as model
from tests.waiting import poll_until

QUICK = ReconcilerSettings(
    worker=WorkerSettings(poll_seconds=0.1, lease_seconds=10.0),
    containers=ContainerObserverSettings(
        gather_seconds=0.01, unexplained_seconds=0.3, node_seconds=0.3, images_seconds=0.1
    ),
    dependents=DependentObserverSettings(gather_seconds=0.05, again_seconds=0.2),
    health=HealthSettings(probe_seconds=0.3, answer_seconds=2.0),
    sweep=SweepSettings(period_seconds=0.5, grace_seconds=0.5),
    usage_period_seconds=1.0,
    autoscalers_period_seconds=0.5,
    clusters_period_seconds=0.2,
    lease_seconds=3.0,
)
LIMITS = TransportLimits(request_seconds=3.0, connect_seconds=2.0)


def _holds_what_developers_do(permission: str) -> bool:
    return permission == "config.use"


# The maker of namespaces may do anything here.
PLATFORM = Rights(Guarded(KeyPatterns(""), ""), lambda _: True, may_adopt=True)
CONTENTS = Contents(
    nouns=[InNamespaces(cascade=delete_containers, forget=forget_containers, held=held_containers)],
    quota_usage=quota_usage,
)


class Samples:
    """A sink that stores its samples in a list."""

    def __init__(self) -> None:
        self.batches: list[list[UsageSample]] = []

    async def store(self, samples: list[UsageSample]) -> None:
        self.batches.append(samples)


RECONCILERS: Reconcilers = {"container": ContainerReconciler(), "namespace": NamespaceReconciler()}

# Labelling by a caller without any permission.
LABELLING = Labelling(KeyPatterns(""), lambda _permission: False)


class Environment:
    """The tests' actions and observations. Namespaces and containers are made by the rules of their nouns."""

    def __init__(self, database: Database, cluster: SimulatedCluster, store: Store) -> None:
        self.database = database
        self.cluster = cluster
        self.store = store
        self.samples = Samples()
        self._clients: list[ClusterClient] = []
        self._looking = asyncio.Lock()
        self._sql: asyncpg.Connection | None = None

    async def connect(self, name: str) -> ClusterClient:
        """Returns a client of the simulated cluster."""
        client = await ClusterClient.from_kubeconfig(self.cluster.kubeconfig(), name=name, limits=LIMITS)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        if self._sql is not None:
            await self._sql.close()

    @asynccontextmanager
    async def reconciling(
        self,
        settings: ReconcilerSettings = QUICK,
        connect: Connect | None = None,
        *,
        rules: DriftRules = DEFAULT_RULES,
        containers: ContainerReconciler | None = None,
    ) -> AsyncIterator[Reconciler]:
        """Runs a reconciler, with other clients if given; at the end it stops without a hand-over, as if killed."""
        reconcilers = {**RECONCILERS, "container": containers or ContainerReconciler(rules)}
        clients = ClusterClients(connect or self.connect)
        reconciler = Reconciler(self.store, clients, self.samples, settings, reconcilers=reconcilers)
        running = asyncio.ensure_future(reconciler.run())
        try:
            yield reconciler
        finally:
            await cancel_and_wait(running)
            await clients.close()
            if not running.cancelled() and (error := running.exception()) is not None:
                raise error

    async def change(self, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
        """Executes one transaction, as a service would."""
        async with self.store.system_write("test") as transaction:
            return await work(transaction)

    async def namespace(self, name: str = "shop", *, adopt: bool = False) -> Namespace:
        """Makes a namespace."""
        wanted = Namespace(
            id=NamespaceId(0),
            uid="",
            name=name,
            kubernetes_name="",
            cluster_name="",
        )
        made: Namespace = await self.change(
            lambda tx: create_namespace(tx, wanted, adopt=adopt, caller=PLATFORM)
        )
        return made

    async def create(
        self, name: str = "web", namespace: str = "shop", *, may: May | None = None, **fields: Any
    ) -> Container:
        """Makes a container, by default as a developer; the simulated pod starts immediately."""
        wanted = model(name=name, kubernetes_name="", **fields)
        made: Container = await self.change(
            lambda tx: create_container(
                tx, namespace, wanted, keys=UNGUARDED, may=may or _holds_what_developers_do
            )
        )
        return made

    async def update(self, name: str = "web", namespace: str = "shop", **fields: Any) -> Container:
        """Changes the desired state of a container."""
        changed: Container = await self.change(
            lambda tx: change_container(
                tx,
                namespace,
                name,
                lambda stored: msgspec.structs.replace(stored, **fields),
                lambda _: None,
                keys=UNGUARDED,
                may=_holds_what_developers_do,
            )
        )
        return changed

    async def move(self, verb: Callable[..., Awaitable[Any]], name: str = "web") -> None:
        """Executes a verb: start, stop, pause, resume or restart."""
        await self.change(lambda tx: verb(tx, "shop", name))

    async def delete(self, name: str = "web") -> None:
        """Requests the deletion of a container."""
        await self.change(lambda tx: delete_container(tx, "shop", name, lambda _: None))

    async def delete_namespace(self, name: str = "shop") -> None:
        """Requests the deletion of a namespace with its contents."""
        await self.change(
            lambda tx: delete_namespace(
                tx, name, cascade=True, contents=CONTENTS, check=lambda _: None, may=lambda _: True
            )
        )

    async def seen(self, name: str = "web", namespace: str = "shop") -> Container | None:
        """Returns the container's row."""
        async with self.store.system_read() as transaction:
            return await find_container_row(transaction, namespace, name)

    async def seen_namespace(self, name: str = "shop") -> Namespace | None:
        """Returns the namespace's row."""
        async with self.store.system_read() as transaction:
            return await find_namespace_row(transaction, name)

    async def until(
        self, holds: Callable[[Container], object], name: str = "web", *, seconds: float = 20.0
    ) -> Container:
        """Waits until `holds` is true of the container's row."""
        found = await poll_until(
            lambda: self.seen(name), lambda row: row is not None and holds(row), seconds=seconds
        )
        assert found is not None
        return found

    async def running(self, name: str = "web") -> Container:
        """Waits until the container runs and all requested changes are applied."""
        return await self.until(lambda row: row.observed.status == "running" and not row.reconciling, name)

    async def apply_as(
        self, manager: str, path: str, manifest: dict[str, Any], *, force: bool = True
    ) -> None:
        """Applies an object (server-side) as another field manager."""
        await self._patch(manager, path, manifest, "application/apply-patch+yaml", force=force)

    async def meddle(self, patch: dict[str, Any], name: str = "web") -> None:
        """Patches one of our Deployments as another client."""
        await self.patch_as("meddler", f"/apis/apps/v1/namespaces/shop/deployments/{name}", patch)

    async def patch_as(self, manager: str, path: str, patch: dict[str, Any]) -> None:
        """Patches an object as another field manager, the way kubectl does."""
        await self._patch(manager, path, patch, "application/strategic-merge-patch+json")

    async def merge_as(self, manager: str, path: str, patch: dict[str, Any]) -> None:
        """Patches an object as another field manager, and replaces each list whole."""
        await self._patch(manager, path, patch, "application/merge-patch+json")

    async def relabel_namespace(self, labels: dict[str, str | None], name: str = "shop") -> None:
        """Sets labels of one of our Kubernetes namespaces as another client; None removes a label."""
        patch = {"metadata": {"labels": labels}}
        await self._patch("meddler", f"/api/v1/namespaces/{name}", patch, "application/merge-patch+json")

    async def end_pod(self, name: str, reason: str, message: str) -> None:
        """Ends a pod for good, as the kubelet does when its node is short of a resource."""
        status = {"phase": "Failed", "reason": reason, "message": message}
        path = f"/api/v1/namespaces/shop/pods/{name}/status"
        await self._patch("kubelet", path, {"status": status}, "application/strategic-merge-patch+json")

    async def _patch(
        self, manager: str, path: str, body: dict[str, Any], content_type: str, *, force: bool = False
    ) -> None:
        token = self.cluster.kubeconfig()["users"][0]["user"]["token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        query = {"fieldManager": manager} | ({"force": "true"} if force else {})
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.patch(self.cluster.url + path, params=query, data=msgspec.json.encode(body)) as response,
        ):
            assert response.status < 300, await response.text()

    async def watched(self) -> None:
        """Writes a lease for one minute by which another server watches the cluster."""
        await self.rows(
            "INSERT INTO leases (name, owner, epoch, expires_at) "
            "VALUES ('observe/local', 'other', 1, now() + interval '1 minute') "
            "ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at"
        )

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Returns rows of the database, as the system role.

        The connection is kept open: a new one costs more than most queries.
        """
        async with self._looking:
            if self._sql is None or self._sql.is_closed():
                self._sql = await asyncpg.connect(self.database.system_dsn)
            await number_changes(self._sql)
            return [dict(row) for row in await self._sql.fetch(query, *arguments)]


@asynccontextmanager
async def environment(
    database: Database, *, speed: float = 10.0, tls: bool = False
) -> AsyncIterator[Environment]:
    """Yields an environment with an empty cluster registered as `local`."""
    settings = Settings(
        database_url=database.app_dsn,
        system_database_url=database.system_dsn,
        maintenance_database_url=database.maintenance_dsn,
        # The same as in `tests.harness`.
        pool_working_connections=2,
    )
    engines = engine.Database.connect(settings)
    store = Store(engines)
    for noun in ("container", "namespace", "run"):
        store.renderers[noun] = lambda entity: Rendered(msgspec.json.encode(entity.name))
    try:
        async with SimulatedCluster(speed=speed, tls=tls) as cluster:
            made = Environment(database, cluster, store)
            await made.change(lambda tx: registration.put_configured(tx, "local", cluster.url))
            try:
                yield made
            finally:
                await made.close()
    finally:
        await engines.close()
