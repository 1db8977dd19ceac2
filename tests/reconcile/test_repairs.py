"""Repairs of containers whose objects others changed or deleted: how the observer makes their work due."""

from __future__ import annotations

import asyncio
from typing import Any

from pilothouse_server.kubernetes.objects import Deployment, ObjectMeta
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster
from pilothouse_server.reconcile.observe.container_observer import ContainerObserver
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.repository import leases
from tests.reconcile.world import QUICK, World
from tests.waiting import poll_until

_WORK = "SELECT FROM reconcile_work WHERE resource_type = 'container' AND resource_id = $1 FOR UPDATE"
_WAITING = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND query LIKE '%INSERT INTO reconcile_work%'"
)


def deployment(uid: str, generation: int) -> Deployment:
    metadata = ObjectMeta(
        name="web", namespace="shop", uid="1", labels={CONTAINER_UID: uid}, generation=generation
    )
    return Deployment(metadata=metadata)


async def test_repairs_lock_work_in_the_order_of_ids(here: World) -> None:
    """As workers that write results do: in another order, one of the two would end by a deadlock."""
    await here.namespace()
    changed, deleted = await here.create("changed"), await here.create("deleted")
    assert changed.id < deleted.id
    lease = await here.change(lambda tx: leases.take(tx, "observe/local", "test", 600.0))
    cluster = LeasedCluster("local", here.store, await here.connect("local"), lease)
    observer = ContainerObserver(cluster, AppliedGenerations(), QUICK.containers)
    view = observer.view
    view.workload_changed("Deployment", None, deployment(changed.uid, 1))
    view.workload_changed("Deployment", deployment(changed.uid, 1), deployment(changed.uid, 2))

    async def until_due() -> bool:
        return observer.seconds_to_next() == 0.0

    # The status is written first, then the look is due that asks whether others changed the Deployment.
    await poll_until(until_due, bool)
    await observer.write_due()
    await poll_until(until_due, bool)
    view.lost.add(deleted.uid)

    async def is_waiting() -> list[dict[str, Any]]:
        return await here.rows(_WAITING)

    async with here.database.system() as worker:
        async with worker.transaction():
            await worker.execute(_WORK, changed.id)
            asking = asyncio.ensure_future(observer.write_due())
            await poll_until(is_waiting, bool, what="the observer waits for the worker's lock")
            await worker.execute(f"{_WORK} NOWAIT", deleted.id)
        await asking
