"""After a database was rewound, objects without a row are not deleted before an administrator decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pilothouse_server.containers.model import ContainerSpec, Port
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES, Resource
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster
from pilothouse_server.reconcile.observe.container_observer import ContainerObserver
from pilothouse_server.reconcile.observe.object_observer import ObjectObserver
from pilothouse_server.reconcile.observe.sweep import Sweep, SweepSettings
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.repository import leases
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import connection
from tests.reconcile.environment import QUICK, Environment
from tests.waiting import poll_until

RESOURCES: dict[str, Resource[Any]] = {
    "Deployment": DEPLOYMENTS,
    "Service": SERVICES,
    "ServiceAccount": SERVICE_ACCOUNTS,
}


async def made_and_forgotten(here: Environment, *, new_history: bool) -> str:
    """Makes a container on the cluster and deletes its row; returns its uid."""
    async with here.reconciling():
        await here.namespace()
        await here.create(
            ports=(Port(container_port=80, service_name="web", service_port=80),),
            spec=ContainerSpec(service_account="web"),
        )
        row = await here.running()
    async with connection(here.database.admin_dsn) as admin:
        await admin.execute("DELETE FROM containers")
        await admin.execute("DELETE FROM reconcile_work WHERE resource_type = 'container'")
        if new_history:
            await admin.execute("SET ROLE pilothouse_owner")
            await admin.execute("SELECT begin_new_history('an older dump was restored')")
    return row.uid


@asynccontextmanager
async def sweeping(here: Environment, uid: str) -> AsyncIterator[Sweep]:
    """Yields a sweep of the cluster, called by hand, once the container with this uid is known to have no row."""
    lease = await here.change(lambda tx: leases.take(tx, "observe/local", "test", 600.0))
    cluster = LeasedCluster("local", here.store, await here.connect("local"), lease)
    observer = ContainerObserver(cluster, AppliedGenerations(), QUICK.containers)

    async def is_unknown() -> bool:
        return uid in observer.unknown

    running = asyncio.ensure_future(observer.run())
    try:
        await poll_until(is_unknown, bool, what="the container is unknown")
        yield Sweep(
            observer,
            ObjectObserver(cluster, AppliedGenerations(), QUICK.objects),
            SweepSettings(grace_seconds=0.0),
        )
    finally:
        await cancel_and_wait(running)


async def kinds_there(here: Environment) -> set[str]:
    client = await here.connect("local")
    return {kind for kind, resource in RESOURCES.items() if await client.find(resource, "shop", "web")}


async def states(here: Environment) -> dict[str, str]:
    return {row["kind"]: row["state"] for row in await here.rows("SELECT kind, state FROM orphans")}


async def decided(here: Environment) -> None:
    await here.rows("UPDATE clusters SET orphans_decided_in = current_history()")


async def test_a_new_history_keeps_orphans_until_an_administrator_decides(here: Environment) -> None:
    uid = await made_and_forgotten(here, new_history=True)
    async with sweeping(here, uid) as sweep:
        for _ in range(3):
            assert await sweep.sweep() == 0
        assert await kinds_there(here) == set(RESOURCES)
        assert await states(here) == dict.fromkeys(RESOURCES, "undecided")
    # Another server keeps them too, and so does this one after a restart.
    async with sweeping(here, uid) as sweep:
        for _ in range(2):
            assert await sweep.sweep() == 0
        await decided(here)
        assert await sweep.sweep() == len(RESOURCES)
    # A deletion may end a moment after it was requested.
    await poll_until(lambda: kinds_there(here), lambda kinds: not kinds)


async def test_a_decision_covers_only_the_orphans_that_it_names(here: Environment) -> None:
    uid = await made_and_forgotten(here, new_history=True)
    async with sweeping(here, uid) as sweep:
        assert await sweep.sweep() == 0
        decide = "UPDATE orphans SET state = $1, decided_at = now() WHERE kind = $2"
        await here.rows(decide, "deleting", "Service")
        await here.rows(decide, "kept", "Deployment")
        assert await sweep.sweep() == 1
        assert await kinds_there(here) == {"Deployment", "ServiceAccount"}
        # A kept object is kept in the history of the decision and in the next one.
        await decided(here)
        assert await sweep.sweep() == 1
        assert await kinds_there(here) == {"Deployment"}
        async with connection(here.database.admin_dsn) as admin:
            await admin.execute("SET ROLE pilothouse_owner")
            await admin.execute("SELECT begin_new_history('again')")
    async with sweeping(here, uid) as sweep:
        assert await sweep.sweep() == 0
        await decided(here)
        for _ in range(2):
            assert await sweep.sweep() == 0
        assert await states(here) == {"Deployment": "kept"}
    assert await kinds_there(here) == {"Deployment"}


async def test_orphans_deleted_from_the_cluster_leave_the_list(here: Environment) -> None:
    uid = await made_and_forgotten(here, new_history=True)
    async with sweeping(here, uid) as sweep:
        await sweep.sweep()
        client = await here.connect("local")
        found = await client.find(SERVICES, "shop", "web")
        assert found is not None
        await client.delete(SERVICES, "shop", "web", uid=found.metadata.uid)
        await sweep.sweep()
    assert set(await states(here)) == {"Deployment", "ServiceAccount"}


async def test_a_rewind_between_two_sweeps_deletes_nothing(here: Environment) -> None:
    """No server has detected the rewind yet: the rows of the previous sweep are missing in the older database."""
    uid = await made_and_forgotten(here, new_history=False)
    async with sweeping(here, uid) as sweep:
        assert await sweep.sweep() == 0
        await here.rows("DELETE FROM orphans")
        assert await sweep.sweep() == 0
        assert await kinds_there(here) == set(RESOURCES)
        assert await sweep.sweep() == len(RESOURCES)
