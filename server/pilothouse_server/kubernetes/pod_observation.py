"""The state of one pod: its phase, whether it is ready, and above all the reason if it is not.

The reason is not in one place. The first of these that has one counts: the pod's own `status.reason` (Evicted,
DeadlineExceeded) -> an init container that waits or failed -> a container's `state.waiting` -> `state.terminated` ->
`lastState.terminated` -> the condition PodScheduled -> a lost node -> events (only they report a volume that cannot be
attached or mounted, and findings of probes). A deletion in progress overrides them all. A healthy pod has no reason.

A program that a probe has killed ends like one that was asked to stop: `Completed`, exit code 0. Only events show that
a probe killed it, and why; they replace that reason. In a pod of several programs the message names the program that it
is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from pilothouse_server.kubernetes.errors import shown
from pilothouse_server.kubernetes.events import explanation
from pilothouse_server.kubernetes.objects import (
    ContainerStatus,
    EventObject,
    ObjectCondition,
    Pod,
    storable,
)
from pilothouse_server.kubernetes.program_observation import (
    CRASH_LOOP,
    NODE_NOT_READY,
    ORDINARY,
    ProgramObservation,
    Reason,
    last_end,
    native_sidecars,
    node_lost,
    terminated,
    waiting,
    with_probes,
)

_REVISION_HASH = "controller-revision-hash"
MOST_COUNTED = 2**31 - 1
_LONGEST_IMAGE = 1000
# End reasons that do not name a cause.
ENDED = frozenset({"Completed", "Error"})


class PodObservation(msgspec.Struct, frozen=True, gc=False):
    """One pod as shown to callers; the fields of `container_pods`. `phase` is the pod's, or `Terminating`.

    `restarted_at`: the latest restart of its running programs; not a column.
    """

    name: str
    uid: str
    phase: str = ""
    reason: str = ""
    message: str = ""
    ready: bool = False
    pod_ip: str = ""
    host_ip: str = ""
    node_name: str = ""
    restart_count: int = 0
    image: str = ""
    image_id: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deleting: bool = False
    # The template that it was created from: the name of its replica set or Job, or the hash that its controller set.
    revision: str = ""
    created_at: datetime | None = None
    restarted_at: datetime | None = None
    # Only for a failed pod: the exit code of its main program, or of the first one that failed.
    exit_code: int | None = None
    # Left empty by `observe_pod`.
    programs: tuple[ProgramObservation, ...] = ()

    @property
    def crash_looping(self) -> bool:
        return self.reason == CRASH_LOOP and not self.deleting

    @property
    def failed(self) -> bool:
        return self.phase == "Failed" and not self.deleting

    @property
    def living(self) -> bool:
        """Whether it counts as a replica: neither being deleted nor ended."""
        return not self.deleting and self.phase not in ("Failed", "Succeeded")


def observe_pod(pod: Pod, main_container: str, events: Iterable[EventObject] = ()) -> PodObservation:
    """Observes one pod; `main_container` names the container whose times and image are shown, or the first."""
    status = pod.status
    main = _main(status.container_statuses, main_container)
    deleting = pod.metadata.deletion_timestamp is not None
    ready = _condition(status.conditions, "Ready") == "True" and not deleting
    reason, message = ("Terminating", "") if deleting else _reason(pod, ready, events)
    started_at, finished_at = _times(main)
    return PodObservation(
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        phase="Terminating" if deleting else status.phase,
        reason=reason,
        message=shown(message),
        ready=ready,
        pod_ip=status.pod_ip,
        host_ip=status.host_ip,
        node_name=pod.spec.node_name,
        restart_count=_restarts(pod),
        image=main.image[:_LONGEST_IMAGE] if main else "",
        image_id=main.image_id[:_LONGEST_IMAGE] if main else "",
        started_at=storable(started_at or (status.start_time if ready else None)),
        finished_at=storable(finished_at),
        deleting=deleting,
        revision=revision_of(pod),
        created_at=storable(pod.metadata.creation_timestamp),
        restarted_at=_restarted_at(pod),
        exit_code=_exit_code(pod, main) if status.phase == "Failed" else None,
    )


def _exit_code(pod: Pod, main: ContainerStatus | None) -> int | None:
    statuses = (main, *pod.status.container_statuses, *pod.status.init_container_statuses)
    ended = (each.state.terminated for each in statuses if each is not None)
    return next((each.exit_code for each in ended if each is not None and each.exit_code), None)


def revision_of(pod: Pod) -> str:
    """Returns the template that a pod was made of: the name of its replica set or Job, or its controller's hash."""
    owners = (owner.name for owner in pod.metadata.owner_references if owner.kind in ("ReplicaSet", "Job"))
    return next(owners, "") or pod.metadata.label(_REVISION_HASH)


def is_starting(pod: Pod) -> bool:
    """Returns whether a pod is in an ordinary start, of which the single steps are of little interest."""
    seen = observe_pod(pod, "")
    ordinary = seen.reason in ORDINARY or seen.reason == "ContainersNotReady"
    return ordinary and seen.living and not seen.ready and seen.restart_count == 0


def waits_without_saying_why(pod: Pod) -> bool:
    """Returns whether a scheduled pod is not ready without a reason in its status; only its events have one."""
    if not pod.spec.node_name or pod.metadata.deletion_timestamp or pod.status.reason:
        return False
    natives = native_sidecars(pod)
    if pod.status.phase == "Running":
        if node_lost(pod):
            return False
        stay = [each for each in pod.status.init_container_statuses if each.name in natives]
        return _condition(pod.status.conditions, "Ready") != "True" and all(
            status.state.running is not None and status.last_state.terminated is None
            for status in (*stay, *pod.status.container_statuses)
        )
    statuses = pod.status.init_container_statuses + pod.status.container_statuses
    return pod.status.phase == "Pending" and all(
        # A native sidecar that runs but has not started blocks the other programs until its startup probe succeeds.
        (status.state.running is None or (status.name in natives and status.last_state.terminated is None))
        and status.state.terminated is None
        and (status.state.waiting is None or status.state.waiting.reason in ORDINARY)
        for status in statuses
    )


def _reason(pod: Pod, ready: bool, events: Iterable[EventObject]) -> Reason:
    """Returns why a pod is not ready: the first reason found, in the order of this module's docstring."""
    status, events = pod.status, tuple(events)
    containers = tuple(with_probes(each, pod.metadata.uid, events) for each in status.container_statuses)
    several = len(status.init_container_statuses) + len(containers) > 1
    found = (
        ((status.reason, status.message) if status.reason else None)
        or _of_init_containers(pod, events, several=several)
        or _of_containers(containers, ready=ready, several=several)
        or _of_scheduling(status.conditions)
        or _of_node(pod)
    )
    if not ready and found is None:
        started = status.phase == "Running" or _waits_for_startup(pod)
        found = explanation(events, pod.metadata.uid, started=started, several=several)
    return found or _unready(status.conditions, ready, status.container_statuses)


def _of_init_containers(pod: Pod, events: tuple[EventObject, ...], *, several: bool) -> Reason | None:
    natives = native_sidecars(pod)
    for status in pod.status.init_container_statuses:
        init = with_probes(status, pod.metadata.uid, events)
        found = waiting(init) or terminated(init) or last_end(init)
        # A waiting main container only has PodInitializing; the init container has the reason.
        done = init.state.terminated is not None and init.state.terminated.exit_code == 0
        if found and not (done and init.name not in natives):
            return _named(found, init, several=several)
    return None


def _of_containers(statuses: Iterable[ContainerStatus], *, ready: bool, several: bool) -> Reason | None:
    for find in (waiting, terminated) if ready else (waiting, terminated, last_end):
        for status in statuses:
            if (found := find(status)) is not None:
                return _named(found, status, several=several)
    return None


def _named(why: Reason, status: ContainerStatus, *, several: bool) -> Reason:
    """Returns the reason with a message that begins with the program's name, if the pod has several."""
    reason, message = why
    program = f"program {status.name}"
    if not several or message.startswith(program):
        return why
    return reason, f"{program}: {message or reason}"


def _waits_for_startup(pod: Pod) -> bool:
    """Returns whether the startup probe of a running native sidecar blocks the programs after it."""
    natives = native_sidecars(pod)
    return any(
        each.name in natives and each.state.running is not None and each.started is False
        for each in pod.status.init_container_statuses
    )


def _of_scheduling(conditions: Iterable[ObjectCondition]) -> Reason | None:
    scheduled = next((each for each in conditions if each.type == "PodScheduled"), None)
    if scheduled is None or scheduled.status != "False":
        return None
    return scheduled.reason, scheduled.message


def _of_node(pod: Pod) -> Reason | None:
    if not node_lost(pod):
        return None
    return NODE_NOT_READY, f"the node {pod.spec.node_name} does not respond"


def _restarts(pod: Pod) -> int:
    """Counts restarts as kubectl does: an init container counts until it is done, so a native sidecar always counts."""
    counted = [
        status
        for status in pod.status.init_container_statuses
        if not status.ready or status.state.running is not None
    ]
    return added_up(status.restart_count for status in (*counted, *pod.status.container_statuses))


def added_up(counts: Iterable[int]) -> int:
    """Returns the sum of counts, at most the largest number that can be stored."""
    return min(sum(counts), MOST_COUNTED)


def _restarted_at(pod: Pod) -> datetime | None:
    times = [
        storable(status.state.running.started_at)
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)
        if status.restart_count > 0 and status.state.running is not None
    ]
    return max((time for time in times if time is not None), default=None)


def _unready(
    conditions: tuple[ObjectCondition, ...], ready: bool, statuses: tuple[ContainerStatus, ...]
) -> Reason:
    if ready:
        return "", ""
    for status in statuses:
        if status.state.waiting is not None and status.state.waiting.reason:
            return status.state.waiting.reason, status.state.waiting.message
    for condition in conditions:
        if condition.type == "Ready" and condition.status != "True":
            return condition.reason, condition.message
    return "", ""


def _condition(conditions: tuple[ObjectCondition, ...], type_: str) -> str:
    return next((condition.status for condition in conditions if condition.type == type_), "")


def _main(statuses: tuple[ContainerStatus, ...], name: str) -> ContainerStatus | None:
    return next((status for status in statuses if status.name == name), statuses[0] if statuses else None)


def _times(main: ContainerStatus | None) -> tuple[datetime | None, datetime | None]:
    """Returns when the main container began; also when it ended, unless it was started again."""
    if main is None:
        return None, None
    if main.state.running is not None:
        return main.state.running.started_at, None
    ended = main.state.terminated or main.last_state.terminated
    return (ended.started_at, ended.finished_at) if ended else (None, None)
