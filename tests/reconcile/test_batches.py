"""Concurrent work is leased, loaded and written in batches, and no item delays or spoils another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from pilothouse_server.clusters.operations import registration
from pilothouse_server.containers.model import Container, Port
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, SERVICES
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import create as create_namespace
from pilothouse_server.reconcile.apply.container_actions import ContainerProgress
from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler, LoadedContainer
from pilothouse_server.reconcile.apply.namespace_reconciler import NamespaceReconciler
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import Done, Result
from pilothouse_server.reconcile.queue.worker import Reconcilers, Worker, WorkerSettings
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction
from pilothouse_server.values.resources import NamespaceId
from pilothouse_simulator.values.resources import DEPLOYMENTS as SIMULATED_DEPLOYMENTS
from tests.reconcile.environment import PLATFORM, RECONCILERS, Environment
from tests.waiting import poll_until, within

SETTINGS = WorkerSettings(poll_seconds=0.02, lease_seconds=10.0)
SHORT = WorkerSettings(poll_seconds=0.02, lease_seconds=0.4)
MANY = 6


@asynccontextmanager
async def working(
    here: Environment, reconcilers: Reconcilers = RECONCILERS, settings: WorkerSettings = SETTINGS
) -> AsyncIterator[None]:
    """Runs one worker, and no observer."""
    client = await here.connect("local")

    async def connect(_: str) -> ClusterClient:
        return client

    clients = ClusterClients(connect)
    worker = Worker(here.store, clients, AppliedGenerations(), settings, reconcilers=reconcilers)
    running = asyncio.ensure_future(worker.run())
    try:
        yield
    finally:
        await cancel_and_wait(running)


async def applied_namespace(here: Environment) -> None:
    """Makes a namespace and waits until it is on its cluster."""
    await here.namespace()
    async with working(here):
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)


async def make_many(here: Environment) -> list[Container]:
    """Makes `MANY` containers with work that is due immediately."""
    return [await here.create(f"web-{number}") for number in range(MANY)]


async def applied(here: Environment) -> set[str]:
    """Returns the names of the containers whose generation was observed."""
    return {
        row["name"] for row in await here.rows("SELECT name FROM containers WHERE observed_generation > 0")
    }


class FailingReconciler(ContainerReconciler):
    """Fails at the step `where` if the container `name` is in the batch.

    `batches`: the sizes of the batches, by operation.
    """

    def __init__(self, where: str, name: str) -> None:
        super().__init__()
        self.where = where
        self.name = name
        self.batches: dict[str, list[int]] = {"load": [], "write": []}

    async def load(
        self, transaction: ReadTransaction, works: Sequence[Work]
    ) -> Mapping[Work, LoadedContainer]:
        self.batches["load"].append(len(works))
        loaded = await super().load(transaction, works)
        self._fail("load", [each.container for each in loaded.values()])
        return loaded

    async def act(self, client: LeasedClient, loaded: LoadedContainer) -> ContainerProgress:
        self._fail("act", [loaded.container])
        return await super().act(client, loaded)

    async def write_batch(
        self,
        store: Store,
        dones: Sequence[Done[LoadedContainer, ContainerProgress]],
        resync: Callable[[], float],
    ) -> Mapping[Work, Result]:
        self.batches["write"].append(len(dones))
        self._fail("write", [done.loaded.container for done in dones])
        return await super().write_batch(store, dones, resync)

    async def write_progress(
        self,
        transaction: Transaction,
        progresses: Sequence[tuple[Container, LoadedContainer, ContainerProgress]],
    ) -> Sequence[Result]:
        written = await super().write_progress(transaction, progresses)
        self._fail("write", [row for row, _, _ in progresses])
        return written

    def _fail(self, where: str, containers: Sequence[Container]) -> None:
        if where == self.where and any(container.name == self.name for container in containers):
            raise RuntimeError("failing")


@pytest.mark.parametrize("where", ["load", "act", "write"])
async def test_one_failure_does_not_delay_the_rest_of_its_batch(here: Environment, where: str) -> None:
    await applied_namespace(here)
    await make_many(here)
    failing = FailingReconciler(where, "web-3")

    async def failed() -> list[dict[str, Any]]:
        return await here.rows("SELECT resource_id, last_error FROM reconcile_work WHERE attempts > 0")

    async with working(here, {"container": failing, "namespace": NamespaceReconciler()}):
        others = {f"web-{number}" for number in range(MANY)} - {"web-3"}
        await poll_until(lambda: applied(here), lambda names: names == others)
        (row,) = await poll_until(failed, bool)
        assert row["last_error"] == "internal error, see the server's log"
        # They were in one batch.
        assert max(failing.batches["load"]) == MANY
        assert max(failing.batches["write"]) > 1
        # The failed container is applied when the fault ends.
        failing.where = ""
        async with here.database.system() as sql:
            await sql.execute("UPDATE reconcile_work SET due_at = clock_timestamp() WHERE attempts > 0")
        await poll_until(lambda: applied(here), lambda names: len(names) == MANY)


async def test_work_of_an_unknown_resource_type_is_left_to_other_servers(here: Environment) -> None:
    await applied_namespace(here)
    await make_many(here)
    async with here.database.system() as sql:
        await sql.execute(
            "UPDATE reconcile_work SET due_at = clock_timestamp() WHERE resource_type = 'namespace'"
        )

    async def given_up() -> list[dict[str, Any]]:
        return await here.rows("SELECT resource_type FROM reconcile_work WHERE attempts > 0")

    async with working(here, {"container": ContainerReconciler()}):
        await poll_until(lambda: applied(here), lambda names: len(names) == MANY)
        found = await poll_until(given_up, bool)
    assert [row["resource_type"] for row in found] == ["namespace"]


@pytest.mark.full
async def test_a_locked_row_delays_only_its_own_container(here: Environment) -> None:
    await applied_namespace(here)
    held, *_ = await make_many(here)
    async with here.database.system() as sql:
        async with sql.transaction():
            await sql.execute("SELECT FROM containers WHERE id = $1 FOR UPDATE", held.id)
            async with working(here):
                others = {f"web-{number}" for number in range(1, MANY)}
                await poll_until(lambda: applied(here), lambda names: names == others)
        async with working(here):
            await poll_until(lambda: applied(here), lambda names: len(names) == MANY)


async def test_only_the_items_whose_lease_is_still_held_are_written(here: Environment) -> None:
    """Another server leases one item while it is applied: only that server may write its status."""
    await applied_namespace(here)
    lost, *_ = await make_many(here)

    class Robbed(ContainerReconciler):
        async def act(self, client: LeasedClient, loaded: LoadedContainer) -> ContainerProgress:
            acted = await super().act(client, loaded)
            if loaded.container.id == lost.id:
                async with here.database.system() as sql:
                    await sql.execute(
                        "UPDATE reconcile_work SET lease_epoch = lease_epoch + 1, lease_owner = 'other', "
                        "leased_until = clock_timestamp() + interval '1 hour' "
                        "WHERE resource_type = 'container' AND resource_id = $1",
                        lost.id,
                    )
            return acted

    async with working(here, {"container": Robbed(), "namespace": NamespaceReconciler()}):
        others = {f"web-{number}" for number in range(1, MANY)}
        await poll_until(lambda: applied(here), lambda names: names == others)

        async def asked_for_again() -> Any:
            query = "SELECT * FROM reconcile_work WHERE lease_owner = 'other' AND due_at < leased_until"
            return await here.rows(query)

        # The next holder of the lease checks the effects on the cluster.
        await poll_until(asked_for_again, bool)
    assert await applied(here) == others


async def test_a_row_written_after_it_was_loaded_keeps_that_write(here: Environment) -> None:
    """Another transaction writes one row while its container is applied; the other rows are written in one batch."""
    await applied_namespace(here)
    touched, *_ = await make_many(here)
    anew: set[str] = set()

    class Touching(ContainerReconciler):
        async def act(self, client: LeasedClient, loaded: LoadedContainer) -> ContainerProgress:
            acted = await super().act(client, loaded)
            if loaded.container.id == touched.id:
                await here.change(
                    lambda transaction: transaction.connection.execute(
                        text("UPDATE containers SET restart_count = 7 WHERE id = :id"), {"id": touched.id}
                    )
                )
            return acted

        async def write_progress(
            self,
            transaction: Transaction,
            progresses: Sequence[tuple[Container, LoadedContainer, ContainerProgress]],
        ) -> Sequence[Result]:
            anew.update(row.name for row, _, _ in progresses)
            return await super().write_progress(transaction, progresses)

    async with working(here, {"container": Touching(), "namespace": NamespaceReconciler()}):
        await poll_until(lambda: applied(here), lambda names: len(names) == MANY)
    assert anew == {touched.name}
    row = await here.seen(touched.name)
    assert row is not None
    assert row.observed.restart_count == 7
    told = await here.rows("SELECT resource_name, kind FROM events WHERE resource_type = 'container'")
    expected = [(f"web-{number}", kind) for number in range(MANY) for kind in ("added", "modified")]
    assert sorted((each["resource_name"], each["kind"]) for each in told) == expected
    due = await here.rows(
        "SELECT count(DISTINCT due_at) AS times, min(due_at) > now() + interval '10 minutes' AS later, "
        "count(lease_owner) AS leased FROM reconcile_work WHERE resource_type = 'container'"
    )
    # Their next checks are not due at the same moment.
    assert due == [{"times": MANY, "later": True, "leased": 0}]


class Killed(BaseException):
    """The process has ended: none of our code runs after this."""


@pytest.mark.parametrize("where", ["load", "act"])
async def test_work_of_a_server_killed_during_a_batch_is_finished_by_the_next(
    here: Environment, where: str
) -> None:
    await applied_namespace(here)
    await make_many(here)

    class Dying(ContainerReconciler):
        async def load(
            self, transaction: ReadTransaction, works: Sequence[Work]
        ) -> Mapping[Work, LoadedContainer]:
            if where == "load":
                raise Killed
            return await super().load(transaction, works)

        async def act(self, client: LeasedClient, loaded: LoadedContainer) -> ContainerProgress:
            if loaded.container.name == "web-3":
                raise Killed
            return await super().act(client, loaded)

    async with here.store.system_call() as connection:
        leased = await work_queue.lease(
            connection, owner="killed", lease_seconds=SHORT.lease_seconds, most=MANY
        )
    client = await here.connect("local")

    async def connect(_: str) -> ClusterClient:
        return client

    reconcilers: Reconcilers = {"container": Dying()}
    dying = Worker(here.store, ClusterClients(connect), AppliedGenerations(), SHORT, reconcilers=reconcilers)
    with pytest.RaisesGroup(Killed, flatten_subgroups=True):
        await dying.reconcile(leased.works)
    assert "web-3" not in await applied(here)
    # The next worker's leases do not expire on a slow machine.
    async with working(here, settings=WorkerSettings(poll_seconds=0.02)):
        await poll_until(lambda: applied(here), lambda names: len(names) == MANY)
    rows = await here.rows("SELECT lease_epoch FROM reconcile_work WHERE resource_type = 'container'")
    assert {row["lease_epoch"] for row in rows} <= {1, 2, 3}


async def test_a_lease_is_renewed_while_the_work_waits_to_be_loaded(here: Environment) -> None:
    """A busy server can take longer to load a batch than a lease lasts."""
    await applied_namespace(here)
    await make_many(here)

    async def ends() -> Any:
        query = "SELECT max(leased_until) AS ends FROM reconcile_work WHERE resource_type = 'container'"
        return (await here.rows(query))[0]["ends"]

    class Slow(ContainerReconciler):
        async def load(
            self, transaction: ReadTransaction, works: Sequence[Work]
        ) -> Mapping[Work, LoadedContainer]:
            first = await ends()
            await poll_until(ends, lambda now: (now - first).total_seconds() > 3.0, what="renewals")
            return await super().load(transaction, works)

    slow: Reconcilers = {"container": Slow(), "namespace": NamespaceReconciler()}
    async with working(here, slow, WorkerSettings(poll_seconds=0.02, lease_seconds=3.0)):
        await poll_until(lambda: applied(here), lambda names: len(names) == MANY)
    rows = await here.rows("SELECT lease_epoch FROM reconcile_work WHERE resource_type = 'container'")
    assert {row["lease_epoch"] for row in rows} == {1}


async def test_an_unresponsive_cluster_delays_only_its_own_work(here: Environment) -> None:
    await here.change(lambda tx: registration.put_configured(tx, "silent", here.cluster.url))
    # More than `workers_per_cluster`.
    wanted = [
        Namespace(id=NamespaceId(0), uid="", name=name, kubernetes_name="", cluster_name="silent")
        for name in ("silent-1", "silent-2", "silent-3")
    ]
    for each in wanted:
        await here.change(partial(create_namespace, wanted=each, adopt=False, caller=PLATFORM))
    client = await here.connect("local")
    asked = asyncio.Event()

    async def connect(name: str) -> ClusterClient:
        if name == "silent":
            asked.set()
            await asyncio.Event().wait()
        return client

    few = WorkerSettings(poll_seconds=0.02, lease_seconds=10.0, workers_per_cluster=2)
    clients = ClusterClients(connect)
    worker = Worker(here.store, clients, AppliedGenerations(), few, reconcilers=RECONCILERS)
    running = asyncio.ensure_future(worker.run())
    try:
        async with within(5.0):
            await asked.wait()
        await here.namespace()
        await make_many(here)
        await poll_until(lambda: applied(here), lambda names: len(names) == MANY)
    finally:
        await cancel_and_wait(running)
        await clients.close()


@pytest.mark.parametrize(
    ("fields", "requests"),
    [
        ({}, ["PATCH deployments/web"]),
        (
            {"ports": (Port(container_port=80, service_name="web", service_port=80),)},
            ["GET services/web", "PATCH deployments/web", "PATCH services/web"],
        ),
        ({"replicas": 3}, ["PATCH deployments/web", "PATCH deployments/web/scale", "PATCH deployments/web"]),
    ],
)
async def test_a_new_container_costs_no_needless_requests(
    here: Environment, fields: dict[str, Any], requests: list[str]
) -> None:
    await applied_namespace(here)
    await here.watched()
    asked: list[str] = []
    here.cluster.faults.on_request = lambda method, path: asked.append(
        f"{method} {path.partition('/namespaces/shop/')[2].partition('?')[0]}"
    )
    await here.create(**fields)
    async with working(here):
        row = await here.until(lambda row: not row.reconciling)
    assert asked == requests
    assert {(each.type, each.status) for each in row.observed.conditions} >= {
        ("Applied", "True"),
        ("Drifted", "False"),
    }


@pytest.mark.parametrize("managed", [True, False])
async def test_an_object_of_somebody_else_with_the_same_name_is_left_alone(
    here: Environment, managed: bool
) -> None:
    """Also if no manager owns its fields, so that an apply would not conflict."""
    await applied_namespace(here)
    client = await here.connect("local")
    labels = {"app": "theirs"}
    theirs = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "theirs:1"}]},
            },
        },
    }
    service = {"metadata": {"name": "api", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}}
    await here.apply_as(
        "them", "/apis/apps/v1/namespaces/shop/deployments/web", _document("apps/v1", "Deployment", theirs)
    )
    await here.apply_as("them", "/api/v1/namespaces/shop/services/api", _document("v1", "Service", service))
    if not managed:
        nobodys: dict[str, Any] = {"metadata": {"managedFields": [{}]}}
        await client.merge_patch(DEPLOYMENTS, "shop", "web", nobodys)
        await client.merge_patch(SERVICES, "shop", "api", nobodys)
    before = [await client.read(DEPLOYMENTS, "shop", "web"), await client.read(SERVICES, "shop", "api")]
    port = Port(container_port=80, service_name="api", service_port=80)
    await here.create("web")
    await here.create("api", ports=(port,))
    async with working(here):
        for name in ("web", "api"):
            row = await here.until(lambda row: row.observed.reason == "NameTaken", name)
            assert row.observed.status == "failed"
    after = [await client.read(DEPLOYMENTS, "shop", "web"), await client.read(SERVICES, "shop", "api")]
    assert [each["spec"] for each in after] == [each["spec"] for each in before]
    assert [each["metadata"].get("labels") for each in after] == [None, None]
    # If the Service cannot be made, no object of the container is made.
    assert await client.find(DEPLOYMENTS, "shop", "api") is None


def _document(version: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, **body}


async def test_work_is_done_while_requests_keep_coming(here: Environment) -> None:
    """Sixteen callers create containers until the first Deployment exists, and fail after `most` calls."""
    most = 400
    made = 0

    async def one_caller() -> None:
        nonlocal made
        while made < most and not here.cluster.store.list(SIMULATED_DEPLOYMENTS, "shop"):
            made += 1
            await here.create(f"web-{made}")

    async with here.reconciling():
        await here.namespace()
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)
        await asyncio.gather(*(one_caller() for _ in range(16)))
        assert made < most
