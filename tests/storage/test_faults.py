"""Storage survives a kill after any write to the cluster, an unreachable cluster, and a broken watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.reconcile.apply.volume_reconciler import VolumeReconciler
from pilothouse_server.reconcile.observe.health import HealthSettings
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.worker import Reconcilers, Worker, WorkerSettings
from pilothouse_server.reconcile.reconciler import Reconciler, ReconcilerSettings
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.storage import operations, repository
from pilothouse_server.storage.model import Volume
from pilothouse_server.store.rendered import Rendered
from pilothouse_simulator.controllers.claims import PROVISIONER
from pilothouse_simulator.values.resources import PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES
from tests.conftest import Database
from tests.harness import QUICK, running_server
from tests.reconcile.environment import LABELLING, RECONCILERS, Environment, environment
from tests.storage.conftest import Place
from tests.waiting import poll_until

WITH_VOLUMES: Reconcilers = {**RECONCILERS, "volume": VolumeReconciler()}
# The leases expire soon, because the next server waits for them.
SHORT = WorkerSettings(poll_seconds=0.02, lease_seconds=0.4)


class Killed(BaseException):
    """The process has ended: none of our code runs after this."""


class DyingClient:
    """A client whose process is killed just after the cluster has executed its first write."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in ("apply", "delete"):
            return method

        async def write(*arguments: Any, **keywords: Any) -> Any:
            await method(*arguments, **keywords)
            raise Killed

        return write


@pytest_asyncio.fixture(loop_scope="session")
async def here(database: Database) -> AsyncIterator[Environment]:
    async with environment(database) as made:
        made.store.renderers["volume"] = lambda entity: Rendered(msgspec.json.encode(entity.name))
        made.cluster.store.create(
            STORAGE_CLASSES,
            {"metadata": {"name": "quick"}, "provisioner": PROVISIONER, "allowVolumeExpansion": True},
        )
        yield made


@asynccontextmanager
async def reconciling(here: Environment) -> AsyncIterator[None]:
    clients = ClusterClients(here.connect)
    settings = msgspec.structs.replace(QUICK, worker=SHORT)
    reconciler = Reconciler(here.store, clients, None, settings, reconcilers=WITH_VOLUMES)
    running = asyncio.ensure_future(reconciler.run())
    try:
        yield
    finally:
        await cancel_and_wait(running)
        await clients.close()


async def seen(here: Environment) -> Volume | None:
    async with here.store.system_read() as transaction:
        return await repository.find(transaction, "shop", "data")


async def settled(here: Environment) -> None:
    """Waits until nothing is left to do."""
    await poll_until(
        lambda: seen(here),
        lambda row: row is None or (not row.reconciling and row.observed.capacity == row.size),
    )


async def make(here: Environment) -> None:
    wanted = Volume(name="data", type="persistent_volume_claim", size="1Gi", storage_class="quick")
    await here.change(
        lambda tx: operations.create(tx, "shop", wanted, labelling=LABELLING, may_use_host_paths=False)
    )


async def grow(here: Environment) -> None:
    def grown(stored: Volume) -> Volume:
        return msgspec.structs.replace(stored, size="2Gi")

    await here.change(
        lambda tx: operations.change(tx, "shop", "data", grown, lambda _: None, labelling=LABELLING)
    )


async def delete(here: Environment) -> None:
    async def nothing(_volume: object) -> None:
        """Refuses no volume."""

    await here.change(lambda tx: operations.delete(tx, "shop", "data", lambda _: None, nothing))


async def die(here: Environment) -> None:
    """Lets one server work until it is killed after its write."""
    client = await here.connect("local")

    async def connect(_: str) -> Any:
        return DyingClient(client)

    async def leased() -> list[work_queue.Work]:
        async with here.store.system_call() as connection:
            found = await work_queue.lease(
                connection, owner="dying", lease_seconds=SHORT.lease_seconds, most=10
            )
            return found.works

    worker = Worker(
        here.store, ClusterClients(connect), AppliedGenerations(), SHORT, reconcilers=WITH_VOLUMES
    )

    async def died() -> bool:
        """Returns whether the server was killed.

        The short lease may expire before the write on a busy machine; then the work is leased again.
        """
        for work in await leased():
            if work.resource_type == "volume":
                try:
                    await worker.reconcile([work])
                except BaseExceptionGroup as failed:
                    if failed.subgroup(Killed) is None:
                        raise
                    return True
        return False

    await poll_until(died)


def sizes(here: Environment) -> list[str]:
    claims = here.cluster.store.list(PERSISTENT_VOLUME_CLAIMS, "shop")
    return [claim["spec"]["resources"]["requests"]["storage"] for claim in claims]


@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [(make, [], ["1Gi"]), (grow, ["1Gi"], ["2Gi"]), (delete, ["1Gi"], [])],
)
async def test_after_a_kill_the_next_server_finishes_the_work(
    here: Environment,
    operation: Callable[[Environment], Awaitable[None]],
    before: list[str],
    after: list[str],
) -> None:
    await here.namespace()
    async with reconciling(here):
        await poll_until(here.seen_namespace, lambda row: row is not None and not row.reconciling)
        if before:
            await make(here)
            await settled(here)
    assert sizes(here) == before
    await operation(here)
    await die(here)
    async with reconciling(here):
        await settled(here)
    assert sizes(here) == after
    assert (await seen(here) is None) == (after == [])


async def test_claims_of_an_unreachable_cluster_are_stale_until_it_is_back(
    database: Database, tmp_path: Path
) -> None:
    health = HealthSettings(probe_seconds=0.05, answer_seconds=1.0)
    settings: ReconcilerSettings = msgspec.structs.replace(QUICK, health=health)
    async with running_server(database, tmp_path, reconciler=settings) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        assert server.cluster is not None
        place = Place(server, server.cluster, "shop")
        name = "quick"
        server.cluster.store.create(STORAGE_CLASSES, {"metadata": {"name": name}, "provisioner": PROVISIONER})
        await place.make(storage_class=name)
        await place.make("scratch", type=pb.VOLUME_TYPE_EMPTY_DIR)
        await place.volume(lambda each: each.status == pb.VOLUME_STATUS_BOUND and not each.reconciling)
        server.cluster.faults.refuse_connections = True
        server.cluster.faults.drop_watches()
        stale = await place.volume(lambda each: each.HasField("stale_since"))
        assert stale.status == pb.VOLUME_STATUS_BOUND
        # A volume without an object on the cluster cannot be stale.
        assert not (await place.get("scratch")).HasField("stale_since")
        await place.make("later", storage_class=name)
        server.cluster.faults.clear()
        await place.volume(lambda each: not each.HasField("stale_since"))
        await place.volume(lambda each: each.status == pb.VOLUME_STATUS_BOUND, "later")


async def test_changes_during_a_broken_watch_are_observed(place: Place) -> None:
    name = f"class-{place.name}"
    await place.make(storage_class=name)
    await place.volume(lambda each: each.reason == "ProvisioningFailed")
    place.cluster.faults.drop_watches()
    place.cluster.faults.fail_next(3)
    place.store.create(STORAGE_CLASSES, {"metadata": {"name": name}, "provisioner": PROVISIONER})
    bound = await place.volume(lambda each: each.status == pb.VOLUME_STATUS_BOUND and not each.reconciling)
    assert bound.capacity == "1Gi"
