"""Steps on a cluster for a container whose runs are Jobs.

A Job is created once and ends once. Its template cannot change, so a later change of the container is not applied to
the running Job, except whether it is suspended. An ended Job is left as it is, and is not created again if it is
deleted after its end. A new run is a Job with a new name; a former Job that still runs is deleted before, and so are
Jobs beyond the number to keep.

A Job that is deleted before its end was observed is created again, like any object that others delete. But a Job with a
TTL may have ended and been deleted for that, so it counts as failed instead: work must not be done twice.
"""

from __future__ import annotations

from pilothouse_server.containers import manifests
from pilothouse_server.containers.job_status import FAILED, REMOVED, REMOVED_MESSAGE, RUN, run_end, runs_kept
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import JobSettings
from pilothouse_server.kubernetes.objects import JOBS, Job, WorkloadObject
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.reconcile.apply.drift import Drift
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import Condition


def has_ended(container: Container, job: WorkloadObject | None) -> bool:
    """Returns whether the newest run has ended. An imported Job counts as ended only once it carries our label."""
    if job is None:
        return run_end(container) is not None
    return job.finished is not None and job.metadata.label(CONTAINER_UID) == container.uid


def lost(container: Container, job: WorkloadObject | None) -> Condition | None:
    """Returns the end of a run whose Job has a TTL, was observed, and is deleted; None for any other run."""
    settings = container.spec.workload
    was_there = container.observed.deployment_name == container.kubernetes_name
    if (
        job is not None
        or not was_there
        or not isinstance(settings, JobSettings)
        or settings.ttl_seconds is None
    ):
        return None
    return Condition(FAILED, "True", REMOVED, REMOVED_MESSAGE, made_from=container.kubernetes_name)


def agrees(container: Container, job: WorkloadObject) -> bool:
    """Returns whether a Job may be in its desired state, judged by its own fields."""
    assert isinstance(job, Job)
    return job.spec.suspend == (container.desired_state != "running") and _is_of_present(container, job)


async def write(
    client: LeasedClient, container: Container, present: WorkloadObject | None, drift: Drift
) -> WorkloadObject:
    """Creates the newest run, or brings it to the desired state. Raises ClusterError, LeaseLost."""
    if present is None:
        await _clear(client, container)
        return await drift.apply(client, JOBS, manifests.workload(container), present=False)
    if _is_of_present(container, present):
        return await drift.apply(client, JOBS, manifests.workload(container), present=True)
    assert isinstance(present, Job)
    suspend = container.desired_state != "running"
    if present.spec.suspend == suspend:
        return present
    return await client.merge_patch(
        JOBS, container.namespace_ref, container.kubernetes_name, {"spec": {"suspend": suspend}}
    )


async def delete_all(client: LeasedClient, container: Container) -> bool:
    """Deletes the Jobs of all runs; returns whether any is left. Raises ClusterError, LeaseLost."""
    found = [job for job in await _jobs(client, container) if manifests.is_ours(container, job)]
    for job in found:
        await _delete(client, container, job)
    return bool(found)


async def _clear(client: LeasedClient, container: Container) -> None:
    """Deletes former runs that have not ended, and runs beyond the number to keep."""
    oldest = container.spec.run - runs_kept(container)
    for job in await _jobs(client, container):
        number = job.metadata.annotation(RUN)
        former = not number.isdecimal() or int(number) < container.spec.run
        if former and (job.finished is None or (number.isdecimal() and int(number) <= oldest)):
            await _delete(client, container, job)


async def _jobs(client: LeasedClient, container: Container) -> tuple[Job, ...]:
    return await client.list(JOBS, container.kubernetes_namespace, f"{CONTAINER_UID}={container.uid}")


async def _delete(client: LeasedClient, container: Container, job: Job) -> None:
    if job.metadata.deletion_timestamp is None:
        await client.delete(JOBS, container.namespace_ref, job.metadata.name, uid=job.metadata.uid)


def _is_of_present(container: Container, job: WorkloadObject) -> bool:
    """Returns whether a Job was rendered from the present container.

    An imported Job has no record of that yet.
    """
    rendered = job.metadata.annotation(manifests.RENDERED)
    wanted = manifests.workload(container)["metadata"]["annotations"][manifests.RENDERED]
    return rendered == wanted or (not rendered and container.imported and container.generation == 1)
