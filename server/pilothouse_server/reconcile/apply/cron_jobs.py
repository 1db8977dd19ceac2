"""Steps on a cluster for a container whose runs are the Jobs of a CronJob.

A run that was requested (`RunContainer`) is a Job that the CronJob owns, as `kubectl create job --from` creates it. The
container counts its requests (`ContainerSpec.run`), and an annotation of the CronJob has the number of the last request
that was met. These steps meet each request exactly once, whichever of them is the last one before a kill:

    1  the Job is created, suspended: it can neither end nor be deleted for its age, and its name is known
    2  the CronJob is applied, with the new number
    3  the Job gets its owner, and starts

While as many runs are active as are allowed, the CronJob is suspended (`schedule_status.is_full`), and requests wait
(`runs_to_begin`).
"""

from __future__ import annotations

from pilothouse_manifests.cron_jobs import REPLACE
from pilothouse_server.containers import manifests
from pilothouse_server.containers.job_status import RUN, run_name
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.schedule_status import active_jobs, is_full, runs_to_begin
from pilothouse_server.containers.workload_settings import CronJobSettings
from pilothouse_server.kubernetes.errors import NAME_TAKEN, Conflict
from pilothouse_server.kubernetes.objects import JOBS, Job, KubernetesObject, Manifest, WorkloadObject
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.kubernetes.set_objects import CRON_JOBS
from pilothouse_server.reconcile.apply.drift import Drift
from pilothouse_server.reconcile.queue.leased_client import LeasedClient


async def manifest_now(
    client: LeasedClient, container: Container, present: KubernetesObject | None
) -> Manifest:
    """Returns the desired manifest of the CronJob, given the present Jobs. Raises ClusterError."""
    jobs = await _jobs(client, container)
    begun = container.spec.run if present is None else _begun(container, present, jobs)
    return _manifest(container, jobs, begun)


async def write(
    client: LeasedClient, container: Container, present: WorkloadObject | None, drift: Drift
) -> WorkloadObject:
    """Brings the CronJob to the desired state, and starts the requested runs. Raises ClusterError, LeaseLost."""
    if present is None:
        manifest = await manifest_now(client, container, None)
        if not container.observed.deployment_name:
            # The CronJob did not exist before, so no request was met.
            manifest["metadata"]["annotations"][RUN] = "1"
        present = await drift.apply(client, CRON_JOBS, manifest, present=False)
    jobs = await _jobs(client, container)
    begun = _begun(container, present, jobs)
    if requested := runs_to_begin(container, present, jobs):
        await _prepare(client, container, requested, drift)
        jobs = await _jobs(client, container)
    written = await drift.apply(client, CRON_JOBS, _manifest(container, jobs, begun), present=True)
    for job in jobs:
        number = job.metadata.annotation(RUN)
        if number.isdecimal() and int(number) <= begun and not job.metadata.owner_references:
            await _begin(client, container, job, written)
    return written


def _manifest(container: Container, jobs: tuple[Job, ...], begun: int) -> Manifest:
    settings = container.spec.workload
    assert isinstance(settings, CronJobSettings)
    manifest = manifests.workload(container, held=is_full(settings, jobs))
    manifest["metadata"]["annotations"][RUN] = str(begun)
    return manifest


def _begun(container: Container, present: KubernetesObject, jobs: tuple[Job, ...]) -> int:
    """Returns the number of the last request that is met or starts now."""
    met = present.metadata.annotation(RUN)
    return max(runs_to_begin(container, present, jobs), default=int(met) if met.isdecimal() else 1)


async def _prepare(client: LeasedClient, container: Container, requested: range, drift: Drift) -> None:
    """Creates the Jobs of requested runs, suspended.

    With `Replace` only the newest, in place of the active Jobs.
    """
    settings = container.spec.workload
    replaces = isinstance(settings, CronJobSettings) and settings.concurrency == REPLACE
    if replaces:
        requested = requested[-1:]
    names = {run_name(container, number) for number in requested}
    if replaces:
        for job in active_jobs(await _jobs(client, container)):
            if job.metadata.name not in names:
                await client.delete(JOBS, container.namespace_ref, job.metadata.name, uid=job.metadata.uid)
    for number in requested:
        manifest = manifests.job_on_request(container, number)
        name = manifest["metadata"]["name"]
        found = await client.find(JOBS, container.kubernetes_namespace, name)
        if found is None:
            await client.apply(JOBS, manifest, drift.admitted)
        elif not manifests.is_ours(container, found):
            where = f"{container.kubernetes_namespace}/{name}"
            raise Conflict(
                f"Job {where} exists and does not belong to this container", status_reason=NAME_TAKEN
            )


async def _begin(client: LeasedClient, container: Container, job: Job, cron_job: WorkloadObject) -> None:
    owner = {
        "apiVersion": CRON_JOBS.api_version,
        "kind": CRON_JOBS.kind,
        "name": cron_job.metadata.name,
        "uid": cron_job.metadata.uid,
        "controller": True,
    }
    patch = {"metadata": {"ownerReferences": [owner]}, "spec": {"suspend": False}}
    await client.merge_patch(JOBS, container.namespace_ref, job.metadata.name, patch)


async def _jobs(client: LeasedClient, container: Container) -> tuple[Job, ...]:
    return await client.list(JOBS, container.kubernetes_namespace, f"{CONTAINER_UID}={container.uid}")
