"""The status of a Job and of its runs: pure functions of the cluster's objects.

A run has succeeded once its Job has the condition Complete, and failed once it has Failed. The cluster sets
SuccessCriteriaMet or FailureTarget earlier, while the last pods end; until then, the run counts as running. The exit
code is that of a failed pod. An image that cannot be pulled never fails a Job, so the run stays pending with that
reason.

A Job that has ended may be deleted at any time, by its TTL or by others. The conditions of its container store the
end (`made_from`: the Job's name), so that the Job is not created again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from pilothouse_manifests.cron_jobs import ALLOW
from pilothouse_server.containers.model import Container, Status, Value
from pilothouse_server.containers.workload_settings import CronJobSettings, JobSettings
from pilothouse_server.containers.workloads import has_runs, has_schedule
from pilothouse_server.kubernetes.conditions import MESSAGE_LIMIT, REASON_LIMIT
from pilothouse_server.kubernetes.objects import Job, ObjectCondition, WorkloadObject, storable
from pilothouse_server.kubernetes.ownership import DOMAIN
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.program_observation import ORDINARY
from pilothouse_server.values.resources import Condition

# The annotation of a Job with the number of its run.
RUN = f"{DOMAIN}/run"
COMPLETE, FAILED = "Complete", "Failed"
ENDS = frozenset({COMPLETE, FAILED})
# The run's outcome is decided, but its last pods have not ended.
_DECIDED = ("SuccessCriteriaMet", "FailureTarget")
# The reason for a Job with a TTL that was deleted before its end was observed.
REMOVED = "Removed"
REMOVED_MESSAGE = "its Job was deleted before its end was seen"


# The default number of runs that are kept.
_RUNS_KEPT = 5
# The default number of runs of a CronJob that may be active at a time.
_MOST_CONCURRENT = 3


def runs_kept(container: Container) -> int:
    """Returns how many runs of a container are kept, the newest included."""
    kept = container.spec.runs_kept
    return _RUNS_KEPT if kept is None else kept


def concurrent_pods(container: Container) -> int:
    """Returns how many pods a container may have at a time.

    For a Job, these are its concurrent pods until it has ended; for a CronJob, the pods of its concurrent runs; for
    other kinds, its replicas, or as many as an autoscaler may create.
    """
    match container.spec.workload:
        case JobSettings() as job:
            return 0 if run_end(container) is not None else _pods_of(job)
        case CronJobSettings() as settings:
            return most_concurrent(settings) * _pods_of(settings.job)
    return max(container.replicas, container.spec.most_replicas)


def most_concurrent(settings: CronJobSettings) -> int:
    """Returns how many runs of a CronJob may be active at a time."""
    if settings.concurrency not in ("", ALLOW):
        return 1
    return _MOST_CONCURRENT if settings.max_concurrent is None else settings.max_concurrent


def _pods_of(job: JobSettings) -> int:
    pods = 1 if job.parallelism is None else job.parallelism
    return pods if job.completions is None else min(pods, job.completions)


def run_name(container: Container, number: int) -> str:
    """Returns the name of a run's Job. For a CronJob, that is a requested run, and the first one has number 2."""
    if has_schedule(container):
        return f"{container.kubernetes_name}-run-{number - 1}"
    present = container.spec.run
    first = container.kubernetes_name.removesuffix(f"-{present}" if present > 1 else "")
    return f"{first}-{number}" if number > 1 else first


def next_run(container: Container) -> Container:
    """Returns the container with a new run. The present run need not have ended."""
    number = container.spec.run + 1
    if has_schedule(container):
        return msgspec.structs.replace(container, spec=msgspec.structs.replace(container.spec, run=number))
    return msgspec.structs.replace(
        container,
        kubernetes_name=run_name(container, number),
        spec=msgspec.structs.replace(container.spec, run=number),
        desired_state="running",
    )


class ContainerRun(Value, frozen=True):
    """A run of a container: a Job. `name`: the name of the Job. `number`: 0 if the database assigns it."""

    name: str
    number: int
    status: Status = "pending"
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    container: str = ""
    namespace: str = ""


class RunState(msgspec.Struct, frozen=True, gc=False):
    """The state of one run."""

    status: Status
    reason: str = ""
    message: str = ""


def run_end(container: Container) -> Condition | None:
    """Returns the condition that ended a container's newest run; None if it has not ended or there are no runs."""
    if not has_runs(container):
        return None
    ends = (each for each in container.observed.conditions if each.type in ENDS and each.status == "True")
    return next((each for each in ends if each.made_from == container.kubernetes_name), None)


def newest_run(container: Container) -> ContainerRun:
    """Returns the newest run of a container before its Job is observed; a CronJob's run has no number yet."""
    if has_schedule(container):
        return _not_seen(container, run_name(container, container.spec.run), 0, "pending")
    status: Status = "pending" if container.desired_state == "running" else container.desired_state
    unseen = _not_seen(container, container.kubernetes_name, container.spec.run, status)
    return with_end(container, unseen)


def _not_seen(container: Container, name: str, number: int, status: Status) -> ContainerRun:
    return ContainerRun(
        name, number, status, "Creating", container=container.name, namespace=container.namespace
    )


def with_end(container: Container, run: ContainerRun) -> ContainerRun:
    """Returns a run with the end that its container stores, if the Job was deleted before its end was observed."""
    end = run_end(container)
    if end is None or run.end_time is not None or run.number != container.spec.run:
        return run
    return msgspec.structs.replace(
        run,
        status="succeeded" if end.type == COMPLETE else "failed",
        reason=end.reason,
        message=end.message,
        end_time=end.last_transition_time,
    )


def ended_state(
    container: Container, job: WorkloadObject | None, pods: Sequence[PodObservation]
) -> RunState | None:
    """Returns the state of a container whose newest run has ended; None while it has not."""
    if job is not None and job.finished is not None:
        return _ended(job.finished, pods)
    end = run_end(container)
    if end is None or job is not None:
        return None
    observed = container.observed
    if observed.status in ("succeeded", "failed"):
        return RunState(observed.status, observed.reason, observed.message)
    return RunState("succeeded" if end.type == COMPLETE else "failed", end.reason, end.message)


def running_state(job: WorkloadObject, pods: Sequence[PodObservation]) -> RunState:
    """Returns the state of a run that has not ended."""
    for condition in job.status.conditions:
        if condition.type in _DECIDED and condition.status == "True":
            return RunState("running", condition.type, condition.message)
    living = [pod for pod in pods if pod.living]
    witness = min(living, key=lambda pod: (pod.reason in ORDINARY, pod.name), default=None)
    if any(pod.phase == "Running" for pod in living):
        if witness is not None and witness.reason not in (*ORDINARY, "ContainersNotReady"):
            return RunState("running", witness.reason, witness.message)
        return RunState("running", message=_progress(job))
    if witness is not None:
        return RunState("pending", witness.reason, witness.message)
    if failed := [pod for pod in pods if pod.failed]:
        # The cluster creates the next pod after a delay that grows with each failure.
        return RunState("pending", failed[-1].reason, _of_pod(failed[-1]))
    return RunState("pending", "NoPods", _progress(job))


def runs_of(
    container: Container, jobs: Iterable[WorkloadObject], pods: Sequence[PodObservation]
) -> tuple[ContainerRun, ...]:
    """Returns the runs whose Jobs exist, in the order of their numbers."""
    found = []
    for job in jobs:
        number = job.metadata.annotation(RUN)
        if isinstance(job, Job) and number.isdecimal() and 0 < int(number) <= container.spec.run:
            mine = [pod for pod in pods if pod.revision == job.metadata.name]
            found.append(run_of(container, job, int(number), mine))
    return tuple(sorted(found, key=lambda run: run.number))


def run_of(container: Container, job: Job, number: int, pods: Sequence[PodObservation]) -> ContainerRun:
    """Returns the run of a Job, from the Job and its pods."""
    end = job.finished
    if end is not None:
        state = _ended(end, pods)
    elif job.spec.suspend:
        state = RunState("paused" if container.desired_state == "paused" else "stopped")
    else:
        state = running_state(job, pods)
    codes = (pod.exit_code for pod in pods if pod.exit_code is not None)
    return ContainerRun(
        name=job.metadata.name,
        number=number,
        status=state.status,
        reason=state.reason[:REASON_LIMIT],
        message=state.message[:MESSAGE_LIMIT],
        exit_code=next(codes, None) if state.status != "succeeded" else None,
        start_time=storable(job.status.start_time),
        end_time=None if end is None else storable(job.status.completion_time or end.last_transition_time),
        container=container.name,
        namespace=container.namespace,
    )


def _ended(end: ObjectCondition, pods: Sequence[PodObservation]) -> RunState:
    if end.type == COMPLETE:
        return RunState("succeeded", end.reason, end.message)
    failed = next((pod for pod in pods if pod.failed), None)
    message = (
        end.message if failed is None or failed.name in end.message else f"{end.message}; {_of_pod(failed)}"
    )
    return RunState("failed", end.reason, message)


def _of_pod(pod: PodObservation) -> str:
    return f"pod {pod.name}: {pod.message or pod.reason}"


def _progress(job: WorkloadObject) -> str:
    if not isinstance(job, Job) or (job.spec.completions or 1) == 1:
        return ""
    return f"{job.status.succeeded} of {job.spec.completions} completions"
