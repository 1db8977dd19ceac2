"""A server killed after any write to the cluster starts no requested run twice, and loses none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import uuid4

import pytest

from pilothouse_server.containers.model import ContainerSpec
from pilothouse_server.containers.operations import run as run_container
from pilothouse_server.containers.operations import stop as stop_container
from pilothouse_server.containers.workload_settings import CronJobSettings, JobSettings
from pilothouse_server.kubernetes.objects import Job, JobState, ObjectCondition, ObjectMeta
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.reconcile.observe.cluster_view import ClusterView
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_simulator.values.resources import CRON_JOBS, EVENTS, JOBS
from tests.reconcile.environment import Environment
from tests.reconcile.test_kills import die_at, next_server, settled
from tests.waiting import poll_until

# Jobs are deleted as soon as they end, so a Job is no proof that its run was made.
_SETTINGS: Final = CronJobSettings(
    schedule="0 0 1 1 *", successful_history_limit=0, job=JobSettings(ttl_seconds=0)
)


async def make(here: Environment) -> None:
    behavior = {"simulate.pilothouse.dev/behavior": "exit:0"}
    await here.create(spec=ContainerSpec(workload=_SETTINGS, pod_annotations=behavior))


async def ran(here: Environment) -> None:
    await here.move(run_container)


async def ran_twice(here: Environment) -> None:
    """Requests two runs before a server reads the first request."""
    await ran(here)
    await ran(here)


async def stopped_and_ran(here: Environment) -> None:
    await here.move(stop_container)
    await ran(here)


async def made_and_ran(here: Environment) -> None:
    await make(here)
    await ran(here)


# For each operation: the steps before it, the least number of its writes, and the runs that follow.
OPERATIONS: Final[dict[str, tuple[tuple[Callable[[Environment], Awaitable[None]], ...], int, set[str]]]] = {
    "create": ((make,), 1, set()),
    "create and run": ((made_and_ran,), 4, {"web-run-1"}),
    "run": ((make, ran), 3, {"web-run-1"}),
    "run twice": ((make, ran_twice), 5, {"web-run-1", "web-run-2"}),
    "suspend and run": ((make, stopped_and_ran), 3, {"web-run-1"}),
}


def begun(here: Environment) -> list[str]:
    """Returns the names of all Jobs for which pods were created, once for each Job."""
    found = {
        (each["involvedObject"]["uid"], each["involvedObject"]["name"])
        for each in here.cluster.store.list(EVENTS, "shop")
        if each["involvedObject"]["kind"] == "Job" and each["reason"] == "SuccessfulCreate"
    }
    return sorted(name for _, name in found)


async def _no_run_is_left(here: Environment) -> None:
    """Waits until each started run is over and its Job is deleted."""

    async def begun_ones() -> list[Any]:
        return [job for job in here.cluster.store.list(JOBS, "shop") if not job["spec"].get("suspend")]

    await poll_until(begun_ones, lambda left: not left)


@pytest.mark.full
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_every_write(here: Environment, operation: str) -> None:
    client = await here.connect("local")
    await here.namespace()
    async with next_server(here, client):
        await poll_until(here.seen_namespace, lambda seen: seen is not None and not seen.reconciling)
    (*first, last), least, expected = OPERATIONS[operation]
    step, died = 0, True
    while died:
        for each in first:
            await each(here)
            async with next_server(here, client):
                await settled(here)
        before = begun(here)
        await last(here)
        died = await die_at(here, step)
        await _no_run_is_left(here)
        async with next_server(here, client):
            await settled(here)
        await _no_run_is_left(here)
        after = begun(here)
        for name in before:
            after.remove(name)
        assert after == sorted(expected), f"killed at write {step}"
        cron_job = here.cluster.store.get(CRON_JOBS, "shop", "web")
        assert cron_job is not None
        assert cron_job["spec"]["suspend"] == (operation == "suspend and run")
        await here.delete()
        async with next_server(here, client):
            await poll_until(here.seen, lambda row: row is None)
        step += died
    # The check is not empty: there were writes to be killed at.
    assert step >= least


async def test_requests_beyond_the_concurrent_runs_wait_until_one_has_ended(here: Environment) -> None:
    """No observer runs here, so each request is accepted."""
    client = await here.connect("local")
    await here.namespace()
    settings = CronJobSettings(schedule="0 0 1 1 *", max_concurrent=2)
    behavior = {"simulate.pilothouse.dev/behavior": "run"}

    def jobs() -> set[str]:
        return {job["metadata"]["name"] for job in here.cluster.store.list(JOBS, "shop")}

    async with next_server(here, client):
        await here.create(spec=ContainerSpec(workload=settings, pod_annotations=behavior))
        await settled(here)
        for _ in range(3):
            await ran(here)
        await settled(here)
        assert jobs() == {"web-run-1", "web-run-2"}
        here.cluster.store.delete(JOBS, "shop", "web-run-1")
        await here.update(image="busybox:1.38")
        await poll_until(here.seen, lambda row: row is not None and not row.reconciling)
        assert jobs() == {"web-run-2", "web-run-3"}


async def test_a_job_deleted_by_its_ttl_unseen_has_failed_and_is_not_made_again(here: Environment) -> None:
    """No observer runs here; its only record is that the Job existed."""
    client = await here.connect("local")
    await here.namespace()
    behavior = {"simulate.pilothouse.dev/behavior": "exit:0"}
    settings = JobSettings(ttl_seconds=0)
    async with next_server(here, client):
        await here.create(spec=ContainerSpec(workload=settings, pod_annotations=behavior))
        await settled(here)
        await _no_run_is_left(here)
    await here.rows("UPDATE containers SET deployment_name = 'web' RETURNING id")
    await here.update(image="nginx:1.28")
    async with next_server(here, client):
        await settled(here)
    seen = await here.seen()
    assert seen is not None
    (failed,) = (each for each in seen.observed.conditions if each.type == "Failed")
    assert (failed.reason, failed.made_from) == ("Removed", "web")
    assert begun(here) == ["web"]


def test_a_run_that_ends_while_another_end_is_written_is_kept() -> None:
    view, uid = ClusterView(AppliedGenerations(), lambda: None), str(uuid4())
    complete = JobState(conditions=(ObjectCondition("Complete", "True"),))

    def deleted(name: str) -> None:
        job = Job(metadata=ObjectMeta(name=name, labels={CONTAINER_UID: uid}), status=complete)
        view.workload_changed("Job", None, job)
        view.workload_changed("Job", job, None)

    deleted("web-1")
    written = list(view.containers[uid].ended)
    deleted("web-2")
    view.forget_ended(uid, written)
    assert list(view.containers[uid].ended) == [("Job", "web-2")]
    # A worker would judge by the row alone.
    assert view.take_lost() == (set(), set())
    view.forget_ended(uid, [("Job", "web-2")])
    assert view.take_lost() == ({uid}, set())
    assert view.take_lost() == (set(), set())
