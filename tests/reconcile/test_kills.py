"""A server killed after any write to the cluster leaves nothing that the next server cannot finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from pilothouse_server.containers import manifests
from pilothouse_server.containers.model import ContainerSpec, Port
from pilothouse_server.containers.operations import pause as pause_container
from pilothouse_server.containers.operations import restart as restart_container
from pilothouse_server.containers.operations import resume as resume_container
from pilothouse_server.containers.operations import start as start_container
from pilothouse_server.containers.operations import stop as stop_container
from pilothouse_server.containers.workload_settings import DaemonSetSettings, JobSettings
from pilothouse_server.guard.model import Admitted
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, JOBS, SERVICE_ACCOUNTS, SERVICES, Resource
from pilothouse_server.kubernetes.set_objects import DAEMON_SETS, STATEFUL_SETS
from pilothouse_server.reconcile.apply.container_actions import ContainerProgress
from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler, LoadedContainer
from pilothouse_server.reconcile.apply.namespace_reconciler import NamespaceReconciler
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.leased_client import LeasedClient, LeaseLost
from pilothouse_server.reconcile.queue.resource_reconciler import Done
from pilothouse_server.reconcile.queue.worker import Reconcilers, Worker, WorkerSettings
from pilothouse_server.reconcile.repository import applied_containers, leases, work_queue
from pilothouse_server.reconcile.repository.applied_containers import Applied
from pilothouse_server.reconcile.repository.container_status import Change
from pilothouse_server.reconcile.repository.work_queue import Release
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.reconcile.environment import RECONCILERS, Environment
from tests.waiting import patient, poll_until

# The leases of `SHORT` expire soon, because the next server waits for them.
LONG = WorkerSettings(lease_seconds=60.0)
SHORT = WorkerSettings(poll_seconds=0.02, lease_seconds=0.4)


class Killed(BaseException):
    """The process has ended: none of our code runs after this."""


class DyingClient:
    """A client whose process is killed just after the cluster has executed write number `step`."""

    def __init__(self, client: ClusterClient, step: int) -> None:
        self._client = client
        self._left = step
        self.died = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in ("apply", "merge_patch", "set_scale", "delete"):
            return method

        async def write(*arguments: Any, **keywords: Any) -> Any:
            answer = await method(*arguments, **keywords)
            self.died = self._left == 0
            self._left -= 1
            if self.died:
                raise Killed
            return answer

        return write


async def leased(here: Environment, settings: WorkerSettings = SHORT) -> list[work_queue.Work]:
    async with here.store.system_call() as connection:
        seconds = settings.lease_seconds
        found = await work_queue.lease(connection, owner="test", lease_seconds=seconds, most=10)
        return found.works


async def die_at(here: Environment, step: int) -> bool:
    """Lets one server work until it is killed at write `step`.

    Returns False if there were fewer writes.
    """
    dying = DyingClient(await here.connect("local"), step)

    async def work_there() -> list[work_queue.Work]:
        return await leased(here, LONG)

    async def connect(_: str) -> Any:
        return dying

    worker = Worker(here.store, ClusterClients(connect), AppliedGenerations(), LONG, reconcilers=RECONCILERS)
    for work in await poll_until(work_there, bool):
        try:
            await worker.reconcile([work])
        except BaseExceptionGroup as failed:
            if failed.subgroup(Killed) is None:
                raise
            break
    # A killed server's lease ends some time; the next server need not wait for that here.
    await here.rows(
        "UPDATE reconcile_work SET leased_until = clock_timestamp(), due_at = clock_timestamp() "
        "WHERE leased_until > clock_timestamp()"
    )
    return dying.died


async def die_on_the_way(here: Environment, step: int, is_over: Callable[[], Awaitable[bool]]) -> bool:
    """Lets one server do all due work until it is killed at write `step`.

    Work that becomes due again is included. Returns False if everything was over before.
    """
    dying = DyingClient(await here.connect("local"), step)

    async def connect(_: str) -> Any:
        return dying

    worker = Worker(here.store, ClusterClients(connect), AppliedGenerations(), SHORT, reconcilers=RECONCILERS)

    async def worked() -> bool:
        for work in await leased(here):
            try:
                await worker.reconcile([work])
            except BaseExceptionGroup as failed:
                if failed.subgroup(Killed) is None:
                    raise
                return True
        return await is_over()

    await poll_until(worked)
    return dying.died


async def on_cluster(client: ClusterClient) -> dict[str, Any]:
    """Returns the compared state on the cluster, without the values that the cluster chooses."""
    result: dict[str, Any] = {}
    kinds: tuple[Resource[Any], ...] = (
        DEPLOYMENTS,
        STATEFUL_SETS,
        DAEMON_SETS,
        JOBS,
        SERVICES,
        SERVICE_ACCOUNTS,
    )
    for resource in kinds:
        for thing in (await client.list(resource, "shop")).items:
            if thing.metadata.name == "default" or thing.metadata.deletion_timestamp is not None:
                continue
            whole = await client.read(resource, "shop", thing.metadata.name)
            spec = whole.get("spec", {})
            for chosen in ("clusterIP", "clusterIPs"):
                spec.pop(chosen, None)
            labels = {k: v for k, v in whole["metadata"].get("labels", {}).items() if "uid" not in k}
            template = spec.get("template", {}).get("metadata", {})
            # The time of a restart differs each time.
            if manifests.RESTARTED_AT in template.get("annotations", {}):
                template["annotations"][manifests.RESTARTED_AT] = "then"
            text = msgspec.json.encode(spec).decode()
            result[f"{resource.kind}/{thing.metadata.name}"] = (labels, _without_uids(text))
    return result


def _without_uids(text: str) -> str:
    return "".join(part for part in text.split('"') if "-4" not in part or len(part) != 36)


async def make(here: Environment) -> None:
    await here.create(
        replicas=2,
        ports=(
            Port(container_port=80, service_name="web", service_port=80),
            Port(container_port=81, service_name="web-admin", service_port=81),
        ),
        spec=ContainerSpec(service_account="web-account"),
    )


async def make_daemon_set(here: Environment) -> None:
    await here.create(spec=ContainerSpec(workload=DaemonSetSettings()))


async def make_job(here: Environment) -> None:
    behavior = {"simulate.pilothouse.dev/behavior": "run"}
    await here.create(spec=ContainerSpec(workload=JobSettings(), pod_annotations=behavior))


async def renamed_port(here: Environment) -> None:
    await here.update(ports=(Port(container_port=80, service_name="other", service_port=80),), replicas=1)


async def headless(here: Environment) -> None:
    """Makes the Service headless, which deletes it and makes it again: a server killed in between leaves none."""
    port = Port(container_port=80, service_name="web", service_port=80, service_type="Headless")
    await here.update(ports=(port,))


async def stopped(here: Environment) -> None:
    await here.move(stop_container)


async def started(here: Environment) -> None:
    await here.move(start_container)


async def resumed(here: Environment) -> None:
    await here.move(resume_container)


async def paused(here: Environment) -> None:
    await here.change(lambda tx: pause_container(tx, "shop", "web", "suspend"))


async def restarted(here: Environment) -> None:
    await here.move(restart_container)


async def deleted(here: Environment) -> None:
    await here.delete()


async def settled(here: Environment) -> None:
    """Waits until nothing is left to do."""
    await poll_until(here.seen, lambda row: row is None or not row.reconciling)


OPERATIONS: dict[str, Callable[[Environment], Awaitable[None]]] = {
    "create": make,
    "update": renamed_port,
    "headless": headless,
    "stop": stopped,
    "pause": paused,
    "start": started,
    "resume": resumed,
    "restart": restarted,
    "delete": deleted,
    "stop a daemon set": stopped,
    "restart a job": restarted,
}
# The other operations are those of a Deployment.
MAKES = {"stop a daemon set": make_daemon_set, "restart a job": make_job}


# Operations that need the state after another operation.
BEFORE = {"start": stopped, "resume": paused}


@asynccontextmanager
async def next_server(here: Environment, client: ClusterClient) -> AsyncIterator[None]:
    """Runs the worker of another server; without an observer, so that it starts immediately."""

    async def connect(_: str) -> ClusterClient:
        return client

    running = asyncio.ensure_future(
        Worker(
            here.store, ClusterClients(connect), AppliedGenerations(), SHORT, reconcilers=RECONCILERS
        ).run()
    )
    try:
        yield
    finally:
        await cancel_and_wait(running)


@pytest.mark.full
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_every_write(here: Environment, operation: str) -> None:
    """A kill after each write is also one before the next; after the last write it is one before the write-back."""
    client = await here.connect("local")
    await here.namespace()
    async with next_server(here, client):
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)

    async def prepared() -> None:
        if operation != "create":
            await MAKES.get(operation, make)(here)
            async with next_server(here, client):
                await settled(here)
                if operation in BEFORE:
                    await BEFORE[operation](here)
                    await settled(here)

    async def cleared() -> None:
        if await here.seen() is not None:
            await deleted(here)
        async with next_server(here, client):
            await poll_until(here.seen, lambda row: row is None)
        assert await on_cluster(client) == {}

    await prepared()
    await OPERATIONS[operation](here)
    async with next_server(here, client):
        await settled(here)
    undisturbed = await on_cluster(client)
    assert bool(undisturbed) == (operation != "delete")
    await cleared()

    least = {"create": 5, "update": 4, "headless": 4, "delete": 3, "stop a daemon set": 1}.get(operation, 2)
    step = 0
    while True:
        await prepared()
        await OPERATIONS[operation](here)
        died = await die_at(here, step)
        async with next_server(here, client):
            await settled(here)
        assert await on_cluster(client) == undisturbed, f"killed at write {step}"
        await cleared()
        if not died:
            break
        step += 1
    # The check is not empty: there were writes to be killed at.
    assert step >= least


async def test_a_frozen_server_cannot_write_back(here: Environment) -> None:
    """It leased work, was stopped past its lease, and wakes up after another server has continued."""
    await here.namespace()
    async with here.reconciling():
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)
    await here.create()
    # The namespace may have work again, from observations that arrived while the first server ended.
    (frozen,) = (work for work in await leased(here) if work.resource_type == "container")
    reconciler = ContainerReconciler()
    async with here.store.system_read(snapshot=True) as transaction:
        loaded = (await reconciler.load(transaction, [frozen]))[frozen]
    client = LeasedClient(await here.connect("local"), monotonic() + 30)
    outcome = await reconciler.act(client, loaded)
    await here.update(image="nginx:1.28")
    async with here.reconciling():
        await here.running()
    before = await here.seen()
    async with here.store.system_write("test") as transaction:
        results = await reconciler.write_back(transaction, [Done(frozen, loaded, outcome)])
    assert results[frozen].lost
    assert await here.seen() == before


async def test_a_lease_is_renewed_as_long_as_the_work_takes(here: Environment) -> None:
    """The work takes longer than the lease, but no other worker starts it again."""
    await here.namespace()
    async with here.reconciling():
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)
    await here.create()
    client = await here.connect("local")
    quick = msgspec.structs.replace(SHORT, lease_seconds=patient(1.0))

    async def ends() -> Any:
        query = "SELECT max(leased_until) AS ends FROM reconcile_work WHERE resource_type = 'container'"
        return (await here.rows(query))[0]["ends"]

    class Slow(ContainerReconciler):
        async def act(self, client: LeasedClient, loaded: LoadedContainer) -> ContainerProgress:
            first = await ends()
            longer = quick.lease_seconds
            await poll_until(ends, lambda now: (now - first).total_seconds() > longer, what="renewals")
            return await super().act(client, loaded)

    reconcilers: Reconcilers = {"container": Slow(), "namespace": NamespaceReconciler()}

    async def connect(_: str) -> ClusterClient:
        return client

    workers = [
        Worker(here.store, ClusterClients(connect), AppliedGenerations(), quick, reconcilers=reconcilers)
        for _ in range(2)
    ]
    running = [asyncio.ensure_future(worker.run()) for worker in workers]
    try:
        await poll_until(here.seen, lambda row: row is not None and not row.reconciling, seconds=60)
    finally:
        await cancel_and_wait(*running)
    (row,) = await here.rows("SELECT lease_epoch FROM reconcile_work WHERE resource_type = 'container'")
    assert row["lease_epoch"] == 1


async def test_an_expired_lease_stops_the_next_write(here: Environment) -> None:
    client = LeasedClient(await here.connect("local"), monotonic())
    with pytest.raises(LeaseLost):
        await client.apply(DEPLOYMENTS, {"metadata": {"name": "x", "namespace": "y"}}, Admitted("y"))


async def test_work_requested_during_the_work_is_done_after_it(here: Environment) -> None:
    await here.namespace()
    (work,) = await leased(here, LONG)
    async with here.store.system_write("test") as transaction:
        await transaction.enqueue(work.resource_type, work.resource_id, "local", work.namespace_id)
    assert await leased(here, LONG) == []
    async with here.store.system_write("test") as transaction:
        await work_queue.release(transaction, [Release(work, 3600)])
    (again,) = await leased(here, LONG)
    assert again.lease_epoch == work.lease_epoch + 1
    async with here.store.system_write("test") as transaction:
        await work_queue.release(transaction, [Release(again, 3600, attempts=3, error="no")])
    assert await leased(here) == []
    async with here.store.system_write("test") as transaction:
        # The server's own observation does not undo a backoff; a user's request does.
        await work_queue.requeue_namespaces(transaction, [work.resource_id])
    assert await leased(here) == []
    async with here.store.system_write("test") as transaction:
        await transaction.enqueue(work.resource_type, work.resource_id, "local", work.namespace_id)
    assert len(await leased(here)) == 1


async def test_work_requested_after_the_lease_expired_is_done_after_it(here: Environment) -> None:
    """The worker is slow, and no other server took the lease. A request does not postpone a row that is already due."""
    await here.namespace()
    (work,) = await leased(here, LONG)
    async with here.store.system_write("test") as transaction:
        await transaction.connection.execute(
            text("UPDATE reconcile_work SET leased_until = clock_timestamp() - interval '1 s'")
        )
        await transaction.connection.execute(text("UPDATE reconcile_work SET due_at = leased_until"))
    async with here.store.system_write("test") as transaction:
        await transaction.enqueue(work.resource_type, work.resource_id, "local", work.namespace_id)
        await work_queue.release(transaction, [Release(work, 3600)])
    assert len(await leased(here)) == 1


async def test_work_requested_for_an_applied_container_after_its_lease_is_done(here: Environment) -> None:
    """As above, but the result of the apply also ends the lease."""
    await here.namespace()
    await leased(here, LONG)
    container = await here.create()
    (work,) = await leased(here, LONG)
    async with here.database.system() as sql:
        await sql.execute(
            "UPDATE reconcile_work SET leased_until = clock_timestamp() - interval '1 s', "
            "due_at = clock_timestamp() - interval '1 s' WHERE resource_type = 'container'"
        )
        await sql.execute("UPDATE reconcile_work SET due_at = leased_until WHERE resource_type = 'container'")
    async with here.store.system_write("test") as transaction:
        await work_queue.requeue_containers(transaction, [int(container.id)])
        now = await transaction.moment()
    change = Change(container, container.observed, container.generation)
    written = await applied_containers.write(here.store, [Applied(work, change, 3600.0, None)], now)
    assert written.written == {container.id}
    (again,) = await leased(here)
    assert again.resource_id == container.id


async def test_concurrent_workers_lease_a_row_once(here: Environment) -> None:
    for number in range(5):
        await here.namespace(f"shop-{number}")
    taken = await asyncio.gather(*(leased(here, LONG) for _ in range(6)))
    ids = [work.resource_id for found in taken for work in found]
    assert len(ids) == len(set(ids)) == 5


async def test_a_lease_belongs_to_one_server_until_it_ends(here: Environment) -> None:
    async def take(owner: str, seconds: float) -> leases.Lease | None:
        async with here.store.system_write("test") as transaction:
            return await leases.take(transaction, "x", owner, seconds)

    first = await take("a", 60)
    assert first is not None
    assert await take("b", 60) is None
    assert await take("a", 0) == first
    second = await take("b", 60)
    assert second is not None
    assert second.epoch == first.epoch + 1
    async with here.store.system_write("test") as transaction:
        assert not await leases.hold(transaction, first)
        assert await leases.hold(transaction, second)
