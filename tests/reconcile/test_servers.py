"""Several servers on one database: they share the work, one observes, and the next takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from pilothouse_server.clusters.operations import registration
from pilothouse_server.containers.operations import restart as restart_container
from pilothouse_server.containers.operations import stop as stop_container
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import CredentialsRefused
from pilothouse_server.kubernetes.objects import DEPLOYMENTS
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster
from pilothouse_server.reconcile.observe.container_observer import ContainerObserver
from pilothouse_server.reconcile.observe.object_observer import ObjectObserver
from pilothouse_server.reconcile.observe.sweep import Sweep, SweepSettings
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.worker import Worker
from pilothouse_server.reconcile.repository import leases
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.reconcile.environment import QUICK, Environment
from tests.waiting import poll_until


async def test_two_servers_share_the_work_and_one_observes(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased: tuple[set[Any], set[Any]] = (set(), set())
    both = asyncio.Event()

    def watch(worker: Worker, mine: set[Any]) -> None:
        reconcile = worker.reconcile

        async def when_both_have_some(works: Sequence[Work], leased_at: float | None = None) -> None:
            containers = {work.resource_id for work in works if work.resource_type == "container"}
            if containers:
                mine.update(containers)
                if all(leased):
                    both.set()
                # A server with no free worker leaves the rest to the other; neither continues before both have work.
                await both.wait()
            await reconcile(works, leased_at)

        monkeypatch.setattr(worker, "reconcile", when_both_have_some)

    few = msgspec.structs.replace(QUICK, worker=msgspec.structs.replace(QUICK.worker, workers_per_cluster=3))
    async with here.reconciling(few) as first, here.reconciling(few) as second:
        watch(first.worker, leased[0])
        watch(second.worker, leased[1])
        await here.namespace()
        await asyncio.gather(*(here.create(f"web-{number}") for number in range(12)))
        for number in range(12):
            await here.running(f"web-{number}")
        # Each pod once, whichever server observed it.
        assert len(await here.rows("SELECT uid FROM container_pods")) == 12
    assert all(leased)
    assert len(leased[0] | leased[1]) == 12
    history = await here.rows(
        "SELECT container_id, count(*) AS runs FROM container_status_history "
        "WHERE current_status = 'running' GROUP BY container_id"
    )
    assert len(history) == 12
    assert {row["runs"] for row in history} == {1}


async def test_the_next_server_observes_when_the_first_has_stopped(here: Environment) -> None:
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
    await here.move(stop_container)
    async with here.reconciling():
        row = await here.until(lambda row: not (row.reconciling or row.observed.ready_replicas))
        assert row.observed.status == "stopped"


async def without_credentials(name: str) -> ClusterClient:
    """Raises the error of a server that has no kubeconfig of the cluster."""
    raise CredentialsRefused(f'this server has no credentials for cluster "{name}"')


async def test_a_server_that_cannot_reach_the_cluster_leaves_it_to_one_that_can(here: Environment) -> None:
    """The first server has no credentials, like a replica without a kubeconfig, and takes the lease first."""

    async def held() -> list[dict[str, Any]]:
        return await here.rows("SELECT owner, epoch FROM leases WHERE owner IS NOT NULL")

    async def status() -> str:
        return str((await here.rows("SELECT status FROM clusters"))[0]["status"])

    # The lease does not expire on a slow machine. The second server tries to take it at least every three seconds, and
    # the first leaves it free for longer.
    long = msgspec.structs.replace(QUICK, lease_seconds=10.0)
    soon = msgspec.structs.replace(long, free_seconds=5.0)
    async with here.reconciling(soon, connect=without_credentials) as first:
        await poll_until(status, lambda found: found == "unauthorized")
        async with here.reconciling(long) as second:
            await poll_until(status, lambda found: found == "healthy")
            ours = await held()
            await here.namespace()
            await asyncio.gather(*(here.create(f"web-{number}") for number in range(6)))
            for number in range(6):
                await here.running(f"web-{number}")
            # The first server takes neither the lease nor any work while the other one leads.
            assert await held() == ours
            assert first.leaves("local")
            assert not second.leaves("local")
        # Alone, the first server takes the cluster again.
        await poll_until(status, lambda found: found == "unauthorized")
        assert not first.leaves("local")


async def test_a_server_that_never_led_leaves_the_work_that_it_cannot_do(here: Environment) -> None:
    async def leaves() -> bool:
        # The server finds out by the work that it leases.
        await here.move(restart_container)
        return unable.leaves("local")

    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        async with here.reconciling(connect=without_credentials) as unable:
            await poll_until(leaves, bool)
            await here.create("late")
            row = await here.running("late")
            assert all(condition.reason != "CredentialsRefused" for condition in row.observed.conditions)


async def test_a_container_is_observed_only_on_its_own_cluster(here: Environment) -> None:
    """Objects restored into a second cluster carry the same uid: they are neither the container's nor orphans."""
    client = await here.connect("second")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
    before = await here.seen()
    assert before is not None
    # An observation of the second cluster would find another number of pods.
    await client.set_scale(DEPLOYMENTS, "shop", "web", 3)
    await here.change(lambda tx: registration.put_configured(tx, "second", here.cluster.url))
    lease = await here.change(lambda tx: leases.take(tx, "second", "test", 60.0))
    cluster = LeasedCluster("second", here.store, client, lease)
    observer = ContainerObserver(cluster, AppliedGenerations(), QUICK.containers)

    async def unknown() -> bool:
        return before.uid in observer.unknown

    running = asyncio.ensure_future(observer.run())
    try:
        await poll_until(unknown, bool)
        sweep = Sweep(
            observer,
            ObjectObserver(cluster, AppliedGenerations(), QUICK.objects),
            SweepSettings(grace_seconds=0.0),
        )
        assert await sweep.sweep() == 0
    finally:
        await cancel_and_wait(running)
    assert await here.seen() == before
