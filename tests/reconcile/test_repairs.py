"""Work that is due because others changed or deleted objects is locked in the order of ids.

Workers lock the work of written results in the same order. In another order, the two would deadlock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pilothouse_server.containers.model import Port
from pilothouse_server.kubernetes.errors import NotFound
from pilothouse_server.kubernetes.objects import Deployment, Job, JobState, ObjectCondition, ObjectMeta
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster
from pilothouse_server.reconcile.observe.container_observer import ContainerObserver
from pilothouse_server.reconcile.observe.dependent_observer import DependentObserver
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.resource_reconciler import Done
from pilothouse_server.reconcile.repository import leases, work_queue
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_simulator.values.resources import SERVICES
from tests.reconcile.environment import QUICK, Environment
from tests.waiting import poll_until

_WORK = "SELECT FROM reconcile_work WHERE resource_type = $1 AND resource_id = $2 FOR UPDATE"
_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def deployment(uid: str, generation: int) -> Deployment:
    metadata = ObjectMeta(
        name="web", namespace="shop", uid="1", labels={CONTAINER_UID: uid}, generation=generation
    )
    return Deployment(metadata=metadata)


async def observed(here: Environment) -> LeasedCluster:
    """Returns the cluster under a lease of the test's own."""
    lease = await here.change(lambda tx: leases.take(tx, "observe/local", "test", 600.0))
    return LeasedCluster("local", here.store, await here.connect("local"), lease)


async def assert_locks_in_order(
    here: Environment, type_: str, first: int, later: int, locking: Coroutine[Any, Any, object]
) -> None:
    """Checks that `locking` waits for the work of the lower id before it locks that of the higher."""
    assert first < later
    await assert_waits_without(here, (type_, first), (type_, later), locking)


async def assert_waits_without(
    here: Environment, held: tuple[str, int], free: tuple[str, int], locking: Coroutine[Any, Any, object]
) -> None:
    """Checks that `locking` waits for the work `held` without a lock on the work `free`."""

    async def is_waiting() -> list[dict[str, Any]]:
        return await here.rows(_WAITING)

    async with here.database.system() as worker, worker.transaction():
        await worker.execute(_WORK, *held)
        going = asyncio.create_task(locking)
        try:
            await poll_until(is_waiting, bool, what="somebody waits for the worker's lock")
            await worker.execute(f"{_WORK} NOWAIT", *free)
        finally:
            await cancel_and_wait(going)


async def test_changed_and_deleted_containers_are_locked_in_order(here: Environment) -> None:
    await here.namespace()
    changed, deleted = await here.create("changed"), await here.create("deleted")
    observer = ContainerObserver(await observed(here), AppliedGenerations(), QUICK.containers)
    view = observer.view
    view.workload_changed("Deployment", None, deployment(changed.uid, 1))
    view.workload_changed("Deployment", deployment(changed.uid, 1), deployment(changed.uid, 2))

    async def until_due() -> bool:
        return observer.seconds_to_next() == 0.0

    # First the status is written; then the check for changes by others is due.
    await poll_until(until_due, bool)
    await observer.write_due()
    await poll_until(until_due, bool)
    view.lost.add(deleted.uid)
    await assert_locks_in_order(here, "container", int(changed.id), int(deleted.id), observer.write_due())


async def test_a_strangers_job_with_the_label_of_a_container_delays_no_repair(here: Environment) -> None:
    """The Job of somebody else has ended and is deleted; then the container's Deployment is deleted."""
    await here.namespace()
    made = await here.create()
    observer = ContainerObserver(await observed(here), AppliedGenerations(), QUICK.containers)
    view = observer.view
    complete = JobState(conditions=(ObjectCondition("Complete", "True"),))
    job = Job(metadata=ObjectMeta(name="theirs", uid="2", labels={CONTAINER_UID: made.uid}), status=complete)
    for old, new in ((None, job), (job, None)):
        view.workload_changed("Job", old, new)
    for before, after in ((None, deployment(made.uid, 1)), (deployment(made.uid, 1), None)):
        view.workload_changed("Deployment", before, after)

    async def until_due() -> bool:
        return observer.seconds_to_next() == 0.0

    await poll_until(until_due, bool)
    await observer.write_due()
    assert view.lost == set()
    assert made.uid not in view.containers


async def test_containers_whose_services_others_deleted_are_locked_in_order(here: Environment) -> None:
    await here.namespace()
    ports = (Port(container_port=80, service_port=80),)
    made = [await here.create(f"web-{number}", ports=ports) for number in range(2)]
    # Make containers until the later of two has the lower uid.
    while made[-2].uid <= made[-1].uid:
        made.append(await here.create(f"web-{len(made)}", ports=ports))
    first, later = made[-2:]
    async with here.reconciling():
        for each in made:
            await here.running(each.name)
    for each in (first, later):
        here.cluster.store.delete(SERVICES, "shop", each.name)
    observer = DependentObserver(await observed(here), QUICK.dependents)
    await assert_locks_in_order(here, "container", int(first.id), int(later.id), observer.run())


async def test_containers_of_a_deleted_namespace_are_locked_in_order(here: Environment) -> None:
    """Their names are in the opposite order."""
    await here.namespace()
    first, later = await here.create("b"), await here.create("a")
    await assert_locks_in_order(
        here, "container", int(first.id), int(later.id), here.delete_namespace("shop")
    )


async def test_vanished_namespaces_are_locked_in_order(here: Environment) -> None:
    """Their containers are written in the order of their own ids."""
    first, later = await here.namespace("first"), await here.namespace("later")
    await here.create("web", "later")
    await here.create("web", "first")
    async with here.store.system_call() as connection:
        leased = await work_queue.lease(connection, owner="test", lease_seconds=60.0, most=10)
    works = [work for work in leased.works if work.resource_type == "container"]
    assert len(works) == 2
    reconciler = ContainerReconciler()
    async with here.store.system_read(snapshot=True) as transaction:
        loaded = await reconciler.load(transaction, works)
    dones: list[Any] = [Done(work, loaded[work], NotFound("not there", code=404)) for work in works]

    async def write_back() -> None:
        async with here.store.system_write("test") as transaction:
            await reconciler.write_back(transaction, dones)

    await assert_locks_in_order(here, "namespace", int(first.id), int(later.id), write_back())


async def test_requests_of_several_types_hold_work_of_one_type_at_a_time(here: Environment) -> None:
    """A mutation locks work in the order of its writes: here that of the namespace before that of the container."""
    namespace = await here.namespace()
    container = await here.create("web")
    both = [("namespace", int(namespace.id)), ("container", int(container.id))]
    cluster = await observed(here)
    requesting = work_queue.requeue_by_type(cluster.transaction, both)
    await assert_waits_without(here, both[0], both[1], requesting)
