"""Computes the observed state of a container from its cluster's objects.

The module has only pure functions. Status by precedence: paused, stopped, crash_loop_back_off, failed, running (all
replicas ready), pending.

* paused and stopped are the requested states; the reason describes pods that are still there.
* crash_loop_back_off: a program of a pod is in back-off. After a program has restarted, its pod counts as crash looping
  for another `SETTLE_SECONDS`, because the status would otherwise flap to running at every attempt. The caller must
  observe again after `recheck_seconds`.
* failed: the cluster refuses to create pods (ReplicaFailure: quota, admission), or all existing pods have failed for
  good, or the cluster refused the container itself and there is no older workload.
* ImagePullBackOff, Unschedulable and the like are pending with that reason: the cluster keeps trying.
* succeeded, and failed for a Job: its newest run has ended (`job_status`). These precede the requested states.
* running for a CronJob: its schedule is active (`schedule_status`), even if its runs fail.
* running: as many pods are ready as are desired, of any template. The desired number is that of the last request, even
  before the cluster shows it. While the newest template is not rolled out, the reason and the condition `RolledOut`
  (`rollout`) report that.

Pods that are being deleted do not count. Conditions keep their transition time while their status is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice

import msgspec

from pilothouse_server.containers.drift_rules import DEFAULT_RULES
from pilothouse_server.containers.foreign_programs import foreign_programs
from pilothouse_server.containers.job_status import ENDS, RunState, ended_state, run_end, running_state
from pilothouse_server.containers.model import Container, Observed, Status
from pilothouse_server.containers.program_status import MOST_PROGRAMS, program_statuses
from pilothouse_server.containers.rollout import (
    HELD_MESSAGE,
    NOT_FOLLOWED_MESSAGE,
    ROLLING_OUT,
    ROLLOUT_HELD,
    is_outrun,
    observe_rollout,
    reason_of,
    says_why,
    witness,
)
from pilothouse_server.containers.schedule_status import LAST_RUN, ScheduleState, schedule_state
from pilothouse_server.containers.stability import SETTLE_SECONDS, observe_stability
from pilothouse_server.containers.workloads import Newest, has_runs, has_schedule, workload_type
from pilothouse_server.kubernetes.conditions import APPLIED, MESSAGE_LIMIT, REASON_LIMIT, WARNED
from pilothouse_server.kubernetes.events import FAILED_CREATE, KILLED, TOLD_BY_EVENTS, UNHEALTHY, refused_pod
from pilothouse_server.kubernetes.objects import EventObject, ObjectCondition, Pod, ReplicaSet, WorkloadObject
from pilothouse_server.kubernetes.pod_observation import (
    ENDED,
    PodObservation,
    added_up,
    observe_pod,
    revision_of,
    waits_without_saying_why,
)
from pilothouse_server.kubernetes.program_observation import CRASH_LOOP, ORDINARY, observe_programs
from pilothouse_server.kubernetes.set_objects import CronJob
from pilothouse_server.values.permitted_additions import PermittedAdditions
from pilothouse_server.values.resources import Condition, ConditionStatus

DRIFTED = "Drifted"
AVAILABLE = "Available"
PROGRESSING = "Progressing"
REPLICA_FAILURE = "ReplicaFailure"
SUSPENDED = "Suspended"
REPLICAS_NOT_READY = "ReplicasNotReady"
AUTOSCALED = "Autoscaled"
# The reason of `Autoscaled` while an autoscaler has set the number to zero, and will raise it again.
SCALED_TO_ZERO = "ScaledToZero"
# A DaemonSet has pods on more nodes than before, so its share of the quota has grown.
GREW = "Grew"
# An object that others deleted was created again.
REPAIRED = "Repaired"
# Conditions that the reconciler sets; an observation carries them over.
RECONCILED = frozenset({APPLIED, DRIFTED, AUTOSCALED, GREW, REPAIRED, WARNED})

SCALING_DOWN = "ScalingDown"
TERMINATING = "Terminating"
# Reasons of a stopped or paused container, while pods are left.
WINDING_DOWN = frozenset({SCALING_DOWN, TERMINATING})

# The most conditions of a workload that are copied; a Deployment has three.
_MOST_CONDITIONS = 20


class Observation(msgspec.Struct, frozen=True, gc=False):
    """`observed` for the container's row, `pods` for its pods' rows.

    `recheck_seconds`: when to observe again, even if nothing changes. `unexplained`: names of objects, mostly pods, for
    which only events contain the reason why they are not ready; observe again with these events. `troubled`: the pod
    that best shows why the container is not healthy, although its status has a reason or it is running again; its
    events have more details.
    """

    observed: Observed
    pods: tuple[PodObservation, ...] = ()
    spec_replicas: int = 0
    recheck_seconds: float | None = None
    unexplained: tuple[str, ...] = ()
    troubled: str = ""


def observe(
    container: Container,
    workload: WorkloadObject | None,
    replica_sets: Iterable[ReplicaSet] = (),
    pods: Iterable[Pod] = (),
    events: Iterable[EventObject] = (),
    *,
    now: datetime,
    cluster_now: datetime | None = None,
    permitted: PermittedAdditions = DEFAULT_RULES.permitted,
) -> Observation:
    """Returns the observed state of one container.

    `container.observed`: the state that was observed before. `cluster_now`: the time by the cluster's clock, if that is
    known to differ. `permitted`: permitted additions by others.
    """
    pods = tuple(pods)
    events = tuple(events)
    observations = sorted(
        (_observed_pod(pod, container.spec.pod_container_name, events) for pod in pods),
        key=lambda pod: (pod.created_at or now, pod.name),
    )
    every, schedule = observations, None
    if has_runs(container):
        # Pods of former runs do not count for the status.
        observations = [pod for pod in observations if pod.revision == container.kubernetes_name]
    elif isinstance(workload, CronJob):
        schedule = schedule_state(container, workload, observations, cluster_now or now)
        observations = [pod for pod in observations if pod.revision in schedule.active]
        pods = tuple(pod for pod in pods if revision_of(pod) in schedule.active)
    newest, type_ = None, workload_type(container)
    if workload is not None:
        newest = type_.newest(workload, tuple(replica_sets), observations)
    named = [_with_name(pod, type_.per_node) for pod in observations] if type_.names_pods else observations
    spec_replicas = workload.replicas if workload else 0
    rollout = observe_rollout(container, workload, newest, named)
    status, reason, message, recheck_seconds = (
        _status(container, workload, named, events, cluster_now or now)
        if schedule is None
        else _of_schedule(container, schedule, events)
    )
    if status == "running" and not reason and rollout is not None and workload is not None:
        reason, message = reason_of(rollout, workload, named, newest)
    foreign = foreign_programs(container, workload, permitted)
    if status == "running" and reason in ("", ROLLING_OUT) and foreign is not None:
        reason, message = foreign.type, foreign.message
    stability = observe_stability(
        container,
        workload,
        newest,
        pods,
        _needed(container, workload) if workload is not None else 0,
        now=now,
        cluster_now=cluster_now or now,
    )
    if stability is not None and stability.recheck_seconds is not None:
        recheck_seconds = min(stability.recheck_seconds, recheck_seconds or stability.recheck_seconds)
    unexplained = tuple(pod.metadata.name for pod in pods if waits_without_saying_why(pod))
    if not unexplained and (lacking := _lacking(container, workload, observations, schedule)) is not None:
        unexplained = (lacking.metadata.name,)
    if unexplained and not events and (kept := _explained_before(container, status, reason)):
        reason, message = kept
    observed = _observed(container, workload, observations, newest)
    programs = program_statuses(container, pods, newest, events)
    if kept := _killed_before(container, status, reason, message, observed.restart_count):
        reason, message = kept
    observed = msgspec.structs.replace(
        observed,
        status=status,
        reason=reason[:REASON_LIMIT],
        message=message[:MESSAGE_LIMIT],
        programs=programs,
        conditions=_conditions(
            container,
            workload,
            (rollout, foreign, *(() if schedule is None else schedule.conditions)),
            stability.condition if stability is not None else None,
            now,
        ),
    )
    return Observation(
        observed=observed,
        pods=tuple(every),
        spec_replicas=spec_replicas,
        recheck_seconds=recheck_seconds,
        unexplained=unexplained,
        troubled=_troubled(container, observations),
    )


def _observed_pod(pod: Pod, main: str, events: tuple[EventObject, ...]) -> PodObservation:
    programs = islice(observe_programs(pod, main, events), MOST_PROGRAMS)
    return msgspec.structs.replace(observe_pod(pod, main, events), programs=tuple(programs))


def _with_name(pod: PodObservation, per_node: bool) -> PodObservation:
    """Returns the pod with a message that names it: if each pod has its own data or node, it matters which is stuck."""
    if pod.ready or not pod.reason:
        return pod
    where = f" on node {pod.node_name}" if per_node and pod.node_name else ""
    return msgspec.structs.replace(pod, message=f"pod {pod.name}{where}: {pod.message}".removesuffix(": "))


def _observed(
    container: Container,
    workload: WorkloadObject | None,
    observations: list[PodObservation],
    newest: Newest | None,
) -> Observed:
    """Returns the objects' state, before it is interpreted."""
    shown = _shown(observations, newest) or PodObservation("", "")
    return Observed(
        phase=shown.phase,
        ready_replicas=sum(pod.ready for pod in observations),
        deployment_name=workload.metadata.name if workload else "",
        replica_set_name=newest.replica_set if newest else "",
        pod_name=shown.name,
        pod_ip=shown.pod_ip,
        host_ip=shown.host_ip,
        restart_count=added_up(pod.restart_count for pod in observations if not pod.deleting),
        started_at=shown.started_at,
        finished_at=shown.finished_at,
        # The health check marks resources stale and fresh. A state may be written once more after a cluster went away.
        stale_since=container.observed.stale_since,
    )


def _status(
    container: Container,
    workload: WorkloadObject | None,
    pods: list[PodObservation],
    events: Sequence[EventObject],
    now: datetime,
) -> tuple[Status, str, str, float | None]:
    living = [pod for pod in pods if pod.living]
    if has_runs(container) and (ended := ended_state(container, workload, pods)) is not None:
        return ended.status, ended.reason, ended.message, None
    if container.desired_state != "running":
        nothing_applied = _refusal(container) if workload is None else None
        return container.desired_state, *(nothing_applied or _winding_down(workload, pods)), None
    if workload is None:
        return _not_there(container)
    if has_runs(container):
        # The cluster keeps trying, so the run has not failed.
        refused = _refused_pods(container, workload, pods, events)
        going = running_state(workload, pods) if refused is None else RunState("pending", *refused)
        return going.status, going.reason, going.message, None
    if looping := next((pod for pod in pods if pod.crash_looping), None):
        return "crash_loop_back_off", looping.reason, looping.message, None
    if settling := _settling(container, living, now):
        return settling
    if failure := _failure(workload, pods, living) or _refused_pods(container, workload, pods, events):
        return "failed", *failure, None
    ready = sum(pod.ready for pod in living)
    if workload.replicas == 0:
        return *_without_replicas(container, workload), None
    if ready >= _needed(container, workload):
        refused = _refusal(container)
        return "running", *(refused or ("", "")), None
    return "pending", *_why_pending(container, workload, living, ready), None


def _of_schedule(
    container: Container, schedule: ScheduleState, events: Sequence[EventObject]
) -> tuple[Status, str, str, float | None]:
    state, refused = schedule.state, _refusal(container)
    if refused and state.status == "running":
        return "running", *refused, schedule.recheck_seconds
    message, lacking = state.message, schedule.lacking
    if lacking is not None and (refusal := refused_pod(events, lacking.metadata.uid)) is not None:
        message = f"{message}: {FAILED_CREATE} {refusal}"
    return state.status, state.reason, message, schedule.recheck_seconds


def _without_replicas(container: Container, workload: WorkloadObject) -> tuple[Status, str, str]:
    """Returns the status of a container that should run, but has no replica."""
    if workload_type(container).per_node and _is_settled(container, workload) and workload.followed:
        return "pending", "NoNode", "no node of the cluster suits its pods"
    if container.replicas == 0:
        return "stopped", "NoReplicas", ""
    if (condition := scaled_to_zero(container)) is not None:
        return "running", SCALED_TO_ZERO, condition.message
    return "pending", "Scaling", ""


def scaled_to_zero(container: Container) -> Condition | None:
    """Returns the condition of a container whose autoscaler has set the number to zero."""
    wanted = (AUTOSCALED, "True", SCALED_TO_ZERO)
    conditions = container.observed.conditions
    return next((each for each in conditions if (each.type, each.status, each.reason) == wanted), None)


def until_all_ready(observed: Observed, needed: int) -> Observed:
    """Returns the state after `needed` replicas are requested, until the cluster is observed again."""
    if observed.status != "running" or observed.ready_replicas >= needed:
        return observed
    reason, message = _not_all_ready(observed.ready_replicas, needed)
    return msgspec.structs.replace(observed, status="pending", reason=reason, message=message)


def _not_all_ready(ready: int, needed: int) -> tuple[str, str]:
    return REPLICAS_NOT_READY, f"{ready} of {needed} replicas are ready"


def _needed(container: Container, workload: WorkloadObject) -> int:
    """Returns how many replicas must be ready: the workload's, or more if a larger number is not applied yet."""
    if _is_settled(container, workload) or workload_type(container).per_node:
        return workload.replicas
    return max(workload.replicas, container.wanted_replicas)


def _is_settled(container: Container, workload: WorkloadObject) -> bool:
    """Returns whether the observed workload has the desired generation."""
    return container.observed_generation >= container.generation and not is_outrun(container, workload)


def _winding_down(workload: WorkloadObject | None, pods: list[PodObservation]) -> tuple[str, str]:
    """Returns reason and message about the remaining pods of a stopped or paused container."""
    if workload is not None and workload.replicas > 0:
        return SCALING_DOWN, f"{workload.replicas} replicas are still requested on the cluster"
    if left := sum(pod.deleting or pod.living for pod in pods):
        return TERMINATING, f"{left} pods are ending"
    # Pods that are just being created may not be visible yet.
    if workload is not None and (not workload.followed or workload.status.replicas):
        return SCALING_DOWN, NOT_FOLLOWED_MESSAGE
    return "", ""


def until_no_pods(container: Container) -> tuple[str, str]:
    """Returns reason and message from a requested stop or pause to the next observation.

    Empty if the last observation found no pod: no pod will end, so no observation would clear the reason.
    """
    observed = container.observed
    if has_schedule(container):
        # The runs of a CronJob continue.
        return "", ""
    if container.desired_state != "running":
        return (observed.reason, observed.message) if observed.reason in WINDING_DOWN else ("", "")
    if observed.deployment_name and observed.phase in ("", "Failed", "Succeeded"):
        return "", ""
    return SCALING_DOWN, NOT_FOLLOWED_MESSAGE


def _not_there(container: Container) -> tuple[Status, str, str, float | None]:
    if refused := _refusal(container):
        return "failed", *refused, None
    if container.deletion_requested_at is not None:
        return "pending", "Deleting", "", None
    delayed = _applied(container, "Unknown")
    return "pending", *(delayed or ("Creating", "")), None


def _refusal(container: Container) -> tuple[str, str] | None:
    """Returns the cluster's reason and message if it refused the last apply."""
    return _applied(container, "False")


def _applied(container: Container, status: ConditionStatus) -> tuple[str, str] | None:
    for condition in container.observed.conditions:
        if condition.type == APPLIED and condition.status == status:
            return condition.reason, condition.message
    return None


def _settling(
    container: Container, living: list[PodObservation], now: datetime
) -> tuple[Status, str, str, float | None] | None:
    if container.observed.status != "crash_loop_back_off":
        return None
    for pod in living:
        if pod.restarted_at is not None:
            left = SETTLE_SECONDS - (now - pod.restarted_at).total_seconds()
            # A start in the future comes from a clock that is ahead; the wait is never longer than the period.
            if left > 0:
                return (
                    "crash_loop_back_off",
                    container.observed.reason,
                    container.observed.message,
                    min(left, SETTLE_SECONDS),
                )
    return None


def _failure(
    workload: WorkloadObject, pods: list[PodObservation], living: list[PodObservation]
) -> tuple[str, str] | None:
    failing = _find(workload.status.conditions, REPLICA_FAILURE)
    if failing and failing.status == "True" and len(living) < workload.replicas:
        return failing.reason, failing.message
    failed = [pod for pod in pods if pod.failed]
    if failed and not living and workload.replicas > 0:
        return failed[-1].reason, failed[-1].message
    return None


def _lacking(
    container: Container,
    workload: WorkloadObject | None,
    pods: Sequence[PodObservation],
    schedule: ScheduleState | None,
) -> WorkloadObject | None:
    """Returns the object that lacks pods for a reason that only events contain; None if there is none."""
    if schedule is not None:
        return schedule.lacking
    return workload if workload is not None and _lacks_pods(container, workload, pods) else None


def _lacks_pods(container: Container, workload: WorkloadObject, pods: Sequence[PodObservation]) -> bool:
    """Returns whether pods are missing although all present pods are ready.

    For a Job, returns whether it has no pod. Only Deployments have a condition with the reason; for other kinds, only
    events contain it.
    """
    type_ = workload_type(container)
    if container.desired_state != "running" or not (type_.names_pods or type_.runs):
        return False
    if type_.runs:
        return not pods and workload.replicas > 0
    living = [pod for pod in pods if pod.living]
    return len(living) < workload.replicas and all(pod.ready for pod in living)


def _refused_pods(
    container: Container,
    workload: WorkloadObject,
    pods: Sequence[PodObservation],
    events: Sequence[EventObject],
) -> tuple[str, str] | None:
    """Returns reason and message if the controller cannot create the missing pods."""
    if not _lacks_pods(container, workload, pods):
        return None
    before = container.observed
    if not events and before.reason == FAILED_CREATE:
        # The events have not been requested again yet, or the cluster has deleted them for their age.
        return before.reason, before.message
    refusal = refused_pod(events, workload.metadata.uid)
    return None if refusal is None else (FAILED_CREATE, refusal)


def _why_pending(
    container: Container, workload: WorkloadObject, living: list[PodObservation], ready: int
) -> tuple[str, str]:
    if (unready := witness(living)) is not None and unready.reason:
        by_node = (
            f"ready on {ready} of {workload.replicas} nodes; " if workload_type(container).per_node else ""
        )
        return unready.reason, by_node + unready.message
    if refused := _refusal(container):
        return refused
    progressing = _find(workload.status.conditions, PROGRESSING)
    if progressing and progressing.status == "False":
        return progressing.reason, progressing.message
    return _not_all_ready(ready, _needed(container, workload))


def _conditions(
    container: Container,
    workload: WorkloadObject | None,
    shown: Iterable[Condition | None],
    stable: Condition | None,
    now: datetime,
) -> tuple[Condition, ...]:
    before = {condition.type: condition for condition in container.observed.conditions}
    result = tuple(condition for type_, condition in before.items() if type_ in RECONCILED)
    found: list[Condition] = []
    if workload is None and has_runs(container):
        # The end of a run whose Job was deleted.
        found += [end] if (end := run_end(container)) is not None else []
    elif workload is None:
        found.append(Condition(AVAILABLE, "False", f"{workload_type(container).kind}Missing"))
        found += [each for each in before.values() if each.type == LAST_RUN]
    else:
        found += [
            Condition(
                condition.type[:REASON_LIMIT],
                _condition_status(condition.status),
                condition.reason[:REASON_LIMIT],
                condition.message[:MESSAGE_LIMIT],
                made_from=workload.metadata.name if condition.type in ENDS and has_runs(container) else "",
            )
            for condition in workload.status.conditions[:_MOST_CONDITIONS]
        ]
        if workload.holds_rollout and container.hold_rollout:
            found.append(Condition(ROLLOUT_HELD, "True", "HoldRollout", HELD_MESSAGE))
    found += [
        msgspec.structs.replace(each, reason=each.reason[:REASON_LIMIT], message=each.message[:MESSAGE_LIMIT])
        for each in shown
        if each is not None
    ]
    if container.desired_state == "paused":
        found.append(Condition(SUSPENDED, "True", "Suspended"))
    for condition in found:
        old = before.get(condition.type)
        since = old.last_transition_time if old is not None and old.status == condition.status else now
        result += (msgspec.structs.replace(condition, last_transition_time=since),)
    # The transition time of this condition may change while its status does not.
    result += () if stable is None else (stable,)
    return tuple(sorted(result, key=lambda condition: condition.type))


def _explained_before(container: Container, status: Status, reason: str) -> tuple[str, str] | None:
    """Returns the previous explanation from events while there are no events.

    The events have not been requested again yet, or the cluster has deleted them for their age.
    """
    before = container.observed
    silent = reason in ORDINARY or reason in ("ContainersNotReady", REPLICAS_NOT_READY, ROLLING_OUT)
    if not silent or before.status != status or before.reason not in TOLD_BY_EVENTS:
        return None
    return before.reason, before.message


def _killed_before(
    container: Container, status: Status, reason: str, message: str, restart_count: int
) -> tuple[str, str] | None:
    """Returns the previous explanation for a program that a probe killed.

    None if the status shows another ending than before. Only events report such a kill. The cluster deletes events
    after an hour, and a server that has just started to observe has none.
    """
    before = container.observed
    same = (status, restart_count) == (before.status, before.restart_count) and KILLED in before.message
    if not same or KILLED in message or reason not in (CRASH_LOOP, *ENDED):
        return None
    return (before.reason, before.message) if before.reason in (CRASH_LOOP, UNHEALTHY) else None


def _troubled(container: Container, pods: list[PodObservation]) -> str:
    if container.desired_state != "running":
        return ""
    living = [pod for pod in pods if pod.living]
    unready = witness(living)
    if unready is not None and says_why(unready):
        return unready.name
    if sum(pod.restart_count for pod in living) > container.observed.restart_count:
        return max(living, key=lambda pod: pod.restart_count).name
    return ""


def _condition_status(text: str) -> ConditionStatus:
    match text:
        case "True":
            return "True"
        case "False":
            return "False"
        case _:
            return "Unknown"


def _shown(pods: list[PodObservation], newest: Newest | None) -> PodObservation | None:
    """Returns the pod that represents the container: living first, then of the newest template, ready, oldest."""

    def rank(pod: PodObservation) -> tuple[bool, bool, bool]:
        return not pod.living, newest is not None and pod.revision != newest.name, not pod.ready

    # `min` takes the first of equals, and the pods are sorted by age.
    return min(pods, key=rank, default=None)


def _find(conditions: Iterable[ObjectCondition], type_: str) -> ObjectCondition | None:
    return next((condition for condition in conditions if condition.type == type_), None)
