"""The status of a CronJob and of its runs: pure functions of the cluster's objects.

A CronJob is running as long as its schedule is active. Its reason is `Active` while a run has not ended, and
`Scheduled` otherwise. A failed run is no failure of the schedule, so two conditions have the details:

    Scheduled      whether the schedule starts runs, and when the next run starts. False while the schedule is
                   suspended by the caller, or by the platform (`ConcurrencyReached`) because as many runs as are
                   allowed are active
    LastRun        True if the run that ended last has succeeded, with its name. It stays when the Jobs are deleted

The cluster's controller counts only the Jobs that it created. Jobs of requested runs (`RunContainer`) have the
platform's number in an annotation (`RUN`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from pilothouse_manifests.cron_jobs import ALLOW, FORBID, REPLACE
from pilothouse_server.containers.job_status import (
    COMPLETE,
    RUN,
    ContainerRun,
    RunState,
    most_concurrent,
    run_name,
    run_of,
)
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import CronJobSettings
from pilothouse_server.kubernetes.objects import Job, KubernetesObject
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.set_objects import CronJob
from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.cron_schedule import RunSchedule, time_zone
from pilothouse_server.values.resources import Condition

SCHEDULED, LAST_RUN, ACTIVE = "Scheduled", "LastRun", "Active"
CONCURRENCY_REACHED = "ConcurrencyReached"
_SUSPENDED_BY_CALLER = "SuspendedByCaller"
_NO_TIME = "NoTime"
# Added to the time of the next run, because the cluster's controller acts a moment later.
_AFTER_SECONDS = 2.0


class ScheduleState(msgspec.Struct, frozen=True, gc=False):
    """The state of a CronJob.

    `state`: the state of the container. `active`: the names of the Jobs that have not ended. `recheck_seconds`: seconds
    until the next run is due. `lacking`: a Job that should have pods, but has had none.
    """

    state: RunState
    active: frozenset[str]
    conditions: tuple[Condition, ...]
    recheck_seconds: float | None = None
    lacking: Job | None = None


def active_jobs(jobs: Iterable[Job]) -> list[Job]:
    """Returns the Jobs that have not ended and are not being deleted."""
    return [job for job in jobs if job.finished is None and job.metadata.deletion_timestamp is None]


def is_full(settings: CronJobSettings, jobs: Iterable[Job]) -> bool:
    """Returns whether the schedule may start no run now.

    The cluster's controller enforces `Forbid` and `Replace` itself, but does not count requested runs.
    """
    active = active_jobs(jobs)
    if settings.concurrency in ("", ALLOW):
        return len(active) >= most_concurrent(settings)
    return any(job.metadata.annotation(RUN) for job in active)


def runs_to_begin(container: Container, cron_job: KubernetesObject, jobs: Iterable[Job]) -> range:
    """Returns the numbers of requested runs that start now.

    The limit of active runs bounds them. A request is accepted by the last observation, so two requests in quick
    succession may exceed the limit by one run. Such a run waits until another has ended. With `Replace`, no run waits.
    """
    settings = container.spec.workload
    assert isinstance(settings, CronJobSettings)
    met = cron_job.metadata.annotation(RUN)
    requested = range((int(met) if met.isdecimal() else 1) + 1, container.spec.run + 1)
    if settings.concurrency == REPLACE or not requested:
        return requested
    names = {run_name(container, number) for number in requested}
    others = [job for job in active_jobs(jobs) if job.metadata.name not in names]
    return requested[: max(most_concurrent(settings) - len(others), 0)]


def refusal_of_run(container: Container) -> str:
    """Returns why a requested run may not start now, by the last observation; empty if it may."""
    settings, observed = container.spec.workload, container.observed
    assert isinstance(settings, CronJobSettings)
    if settings.concurrency == FORBID and observed.reason == ACTIVE:
        return "forbids concurrent runs (cron_job.concurrency), and one is active: wait until it has ended"
    if any(each.reason == CONCURRENCY_REACHED for each in observed.conditions if each.type == SCHEDULED) and (
        settings.concurrency != REPLACE
    ):
        most = most_concurrent(settings)
        return f"has {most} active runs, as many as it may have (cron_job.max_concurrent): wait until one has ended"
    return ""


def shall_be_suspended(container: Container, jobs: Iterable[Job]) -> bool:
    """Returns whether the schedule of a CronJob must be suspended now."""
    settings = container.spec.workload
    return container.desired_state != "running" or (
        isinstance(settings, CronJobSettings) and is_full(settings, jobs)
    )


def in_order(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Returns Jobs, sorted by creation time."""
    begin = datetime.min.replace(tzinfo=UTC)
    return tuple(sorted(jobs, key=lambda job: (job.metadata.creation_timestamp or begin, job.metadata.name)))


def runs_of_schedule(
    container: Container, jobs: Iterable[Job], pods: Sequence[PodObservation]
) -> tuple[ContainerRun, ...]:
    """Returns the runs whose Jobs exist, oldest first, without their numbers."""
    return tuple(
        run_of(container, job, 0, [pod for pod in pods if pod.revision == job.metadata.name])
        for job in in_order(jobs)
    )


def schedule_state(
    container: Container, cron_job: CronJob, pods: Sequence[PodObservation], now: datetime
) -> ScheduleState:
    """Returns the state of a CronJob. `now`: by the clock of its cluster."""
    settings = container.spec.workload
    assert isinstance(settings, CronJobSettings)
    runs = runs_of_schedule(container, cron_job.jobs, pods)
    active = frozenset(job.metadata.name for job in active_jobs(cron_job.jobs))
    going = [run for run in runs if run.name in active]
    scheduled, seconds = _scheduled(container, settings, cron_job, now)
    status = container.desired_state
    state = RunState(status, *(("", "") if status != "running" else (scheduled.reason, scheduled.message)))
    if going:
        newest = going[-1]
        words = f"{len(going)} active, the newest {newest.name}"
        why = " ".join(filter(None, (newest.reason, newest.message)))
        state = RunState(status, ACTIVE, f"{words}: {why}" if why else words)
    found = (scheduled, _last_run(container, runs))
    with_pods = {pod.revision for pod in pods}
    lacking = (
        job for job in active_jobs(cron_job.jobs) if job.replicas and job.metadata.name not in with_pods
    )
    return ScheduleState(
        state, active, tuple(each for each in found if each is not None), seconds, next(lacking, None)
    )


def _scheduled(
    container: Container, settings: CronJobSettings, cron_job: CronJob, now: datetime
) -> tuple[Condition, float | None]:
    if container.desired_state != "running":
        return Condition(SCHEDULED, "False", _SUSPENDED_BY_CALLER, f"it is {container.desired_state}"), None
    if is_full(settings, cron_job.jobs):
        words = "no scheduled run begins until an active run has ended"
        return Condition(SCHEDULED, "False", CONCURRENCY_REACHED, words), None
    last = cron_job.status.last_schedule_time or cron_job.metadata.creation_timestamp or now
    try:
        schedule, zone = RunSchedule.parse(settings.schedule), time_zone(settings.time_zone)
        following = schedule.next_after(now, zone, since=last)
    except (InvalidValueError, OverflowError):
        # This release cannot parse a schedule from an import or from a later release.
        return Condition(SCHEDULED, "True", SCHEDULED, settings.schedule), None
    if following is None:
        return Condition(SCHEDULED, "False", _NO_TIME, f'no date matches "{settings.schedule}"'), None
    words = f"next run at {following.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Condition(SCHEDULED, "True", SCHEDULED, words), (following - now).total_seconds() + _AFTER_SECONDS


def _last_run(container: Container, runs: Iterable[ContainerRun]) -> Condition | None:
    """Returns the condition for the run that ended last; the present condition if no run has ended since."""
    before = next((each for each in container.observed.conditions if each.type == LAST_RUN), None)
    ended = [(run.end_time, run.name, run) for run in runs if run.end_time is not None]
    if not ended:
        return before
    end, name, run = max(ended, key=lambda each: each[:2])
    made_from = f"{end.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}/{name}"
    if before is not None and before.made_from > made_from:
        return before
    succeeded = run.status == "succeeded"
    words = f"{name} ended at {made_from.partition('/')[0]}" + (f": {run.message}" if run.message else "")
    reason = run.reason or (COMPLETE if succeeded else "Failed")
    return Condition(LAST_RUN, "True" if succeeded else "False", reason, words, made_from=made_from)
