"""A database, a simulated cluster and the reconciler between them; changes are asked for by the nouns' own rules."""

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
    """A sink that keeps its samples."""

    def __init__(self) -> None:
        self.batches: list[list[UsageSample]] = []

    async def store(self, samples: list[UsageSample]) -> None:
        self.batches.append(samples)


RECONCILERS: Reconcilers = {"container": ContainerReconciler(), "namespace": NamespaceReconciler()}

# Of who labels as everybody may.
LABELLING = Labelling(KeyPatterns(""), lambda _permission: False)


class World:
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
        """A client of the simulated cluster."""
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
        """A running reconciler, with other clients if given; at the end it is gone without a word, as if killed."""
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
        """One transaction, as a service would make it."""
        async with self.store.system_write("test") as transaction:
            return await work(transaction)

    async def namespace(self, name: str = "shop", *, adopt: bool = False) -> Namespace:
        """Make a namespace."""
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
        """Makes a container; by default a developer makes it, and the simulated pod starts immediately."""
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
        """Start, stop, pause, resume, restart."""
        await self.change(lambda tx: verb(tx, "shop", name))

    async def delete(self, name: str = "web") -> None:
        """Ask for a container's deletion."""
        await self.change(lambda tx: delete_container(tx, "shop", name, lambda _: None))

    async def delete_namespace(self, name: str = "shop") -> None:
        """Ask for a namespace's deletion with all it holds."""
        await self.change(
            lambda tx: delete_namespace(
                tx, name, cascade=True, contents=CONTENTS, check=lambda _: None, may=lambda _: True
            )
        )

    async def seen(self, name: str = "web", namespace: str = "shop") -> Container | None:
        """The container's row."""
        async with self.store.system_read() as transaction:
            return await find_container_row(transaction, namespace, name)

    async def seen_namespace(self, name: str = "shop") -> Namespace | None:
        """The namespace's row."""
        async with self.store.system_read() as transaction:
            return await find_namespace_row(transaction, name)

    async def until(
        self, holds: Callable[[Container], object], name: str = "web", *, seconds: float = 20.0
    ) -> Container:
        """Wait until the container's row is so."""
        found = await poll_until(
            lambda: self.seen(name), lambda row: row is not None and holds(row), seconds=seconds
        )
        assert found is not None
        return found

    async def running(self, name: str = "web") -> Container:
        """Wait until the container runs and everything asked for was applied."""
        return await self.until(lambda row: row.observed.status == "running" and not row.reconciling, name)

    async def apply_as(
        self, manager: str, path: str, manifest: dict[str, Any], *, force: bool = True
    ) -> None:
        """Server-side apply by somebody else."""
        await self._patch(manager, path, manifest, "application/apply-patch+yaml", force=force)

    async def meddle(self, patch: dict[str, Any], name: str = "web") -> None:
        """Patches one of our Deployments, as another client."""
        await self.patch_as("meddler", f"/apis/apps/v1/namespaces/shop/deployments/{name}", patch)

    async def patch_as(self, manager: str, path: str, patch: dict[str, Any]) -> None:
        """Somebody else patches an object, as kubectl does."""
        await self._patch(manager, path, patch, "application/strategic-merge-patch+json")

    async def merge_as(self, manager: str, path: str, patch: dict[str, Any]) -> None:
        """Somebody else patches an object, and replaces each list whole."""
        await self._patch(manager, path, patch, "application/merge-patch+json")

    async def relabel_namespace(self, labels: dict[str, str | None], name: str = "shop") -> None:
        """Sets labels of one of our Kubernetes namespaces, as another client; None removes one."""
        patch = {"metadata": {"labels": labels}}
        await self._patch("meddler", f"/api/v1/namespaces/{name}", patch, "application/merge-patch+json")

    async def end_pod(self, name: str, reason: str, message: str) -> None:
        """The kubelet ends a pod for good, as when its node is short of something."""
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
        """Have another server watch the cluster, for a minute, as far as the database says."""
        await self.rows(
            "INSERT INTO leases (name, owner, epoch, expires_at) "
            "VALUES ('observe/local', 'other', 1, now() + interval '1 minute') "
            "ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at"
        )

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Rows of the database, as the system role. The connection is kept: a new one costs more than most looks."""
        async with self._looking:
            if self._sql is None or self._sql.is_closed():
                self._sql = await asyncpg.connect(self.database.system_dsn)
            await number_changes(self._sql)
            return [dict(row) for row in await self._sql.fetch(query, *arguments)]


@asynccontextmanager
async def world(database: Database, *, speed: float = 10.0, tls: bool = False) -> AsyncIterator[World]:
    """A world with an empty cluster registered as `local`."""
    settings = Settings(
        database_url=database.app_dsn,
        system_database_url=database.system_dsn,
        maintenance_database_url=database.maintenance_dsn,
        # As of `tests.harness`.
        pool_working_connections=2,
    )
    engines = engine.Database.connect(settings)
    store = Store(engines)
    for noun in ("container", "namespace", "run"):
        store.renderers[noun] = lambda entity: Rendered(msgspec.json.encode(entity.name))
    try:
        async with SimulatedCluster(speed=speed, tls=tls) as cluster:
            made = World(database, cluster, store)
            await made.change(lambda tx: registration.put_configured(tx, "local", cluster.url))
            try:
                yield made
            finally:
                await made.close()
    finally:
        await engines.close()
