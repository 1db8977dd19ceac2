"""The state of one pod: its phase, whether it is ready, and above all the reason if it is not.

The reason is not in one place. The first of these that has one counts: the pod's own `status.reason` (Evicted,
DeadlineExceeded) -> an init container that waits or failed -> a container's `state.waiting` -> `state.terminated` ->
`lastState.terminated` -> the condition PodScheduled -> a lost node -> events (only they report a volume that cannot be
attached or mounted, and findings of probes). A deletion in progress overrides them all. A healthy pod has no reason.

A program that a probe has killed ends like one that was asked to: `Completed`, exit code 0. Only events show that it
was killed, and why; they replace that reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from pilothouse_server.kubernetes.errors import shown
from pilothouse_server.kubernetes.events import UNHEALTHY, explanation, failed_probe
from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
    EventObject,
    ObjectCondition,
    Pod,
    Terminated,
    storable,
)

_REVISION_HASH = "controller-revision-hash"
MOST_COUNTED = 2**31 - 1
_LONGEST_IMAGE = 1000
CRASH_LOOP = "CrashLoopBackOff"
NODE_NOT_READY = "NodeNotReady"
# A reason in one word, and a message.
Reason = tuple[str, str]
# Reasons to wait that are the ordinary way to a running pod.
ORDINARY = frozenset({"", "ContainerCreating", "PodInitializing"})
START_ERROR = "StartError"
# How a program ends whom nobody says to have ended it.
ENDED = frozenset({"Completed", "Error"})
# An attempt to start that failed. The back-off follows within seconds, and such attempts come between two of them.
_FAILED_ATTEMPTS = frozenset({"RunContainerError", START_ERROR, "PostStartHookError"})
# Ends of which the exit code says nothing.
_EXPLAINED_ENDS = frozenset({START_ERROR, UNHEALTHY})


class PodObservation(msgspec.Struct, frozen=True, gc=False):
    """One pod as shown to callers; the fields of `container_pods`. `phase` is the pod's, or `Terminating`."""

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
    # The template that it was made of: the name of its replica set, or the hash that its controller gave it.
    revision: str = ""
    created_at: datetime | None = None

    @property
    def crash_looping(self) -> bool:
        return self.reason == CRASH_LOOP and not self.deleting

    @property
    def failed(self) -> bool:
        return self.phase == "Failed" and not self.deleting

    @property
    def living(self) -> bool:
        """Whether it counts as a replica: neither on its way out nor at its end."""
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
    )


def revision_of(pod: Pod) -> str:
    """Returns the template that a pod was made of: the name of its replica set, or the hash that its controller set."""
    owners = (owner.name for owner in pod.metadata.owner_references if owner.kind == "ReplicaSet")
    return next(owners, "") or pod.metadata.label(_REVISION_HASH)


def is_starting(pod: Pod) -> bool:
    """Returns whether a pod is on the ordinary way to be ready, of which each step is worth little by itself."""
    seen = observe_pod(pod, "")
    ordinary = seen.reason in ORDINARY or seen.reason == "ContainersNotReady"
    return ordinary and seen.living and not seen.ready and seen.restart_count == 0


def waits_without_saying_why(pod: Pod) -> bool:
    """Returns whether a pod on a node is not ready and its status does not say why: only its events can."""
    if not pod.spec.node_name or pod.metadata.deletion_timestamp or pod.status.reason:
        return False
    if pod.status.phase == "Running":
        if _node_lost(pod):
            return False
        return _condition(pod.status.conditions, "Ready") != "True" and all(
            status.state.running is not None and status.last_state.terminated is None
            for status in pod.status.container_statuses
        )
    statuses = pod.status.init_container_statuses + pod.status.container_statuses
    return pod.status.phase == "Pending" and all(
        status.state.running is None
        and status.state.terminated is None
        and (status.state.waiting is None or status.state.waiting.reason in ORDINARY)
        for status in statuses
    )


def _reason(pod: Pod, ready: bool, events: Iterable[EventObject]) -> Reason:
    """Returns why a pod is not ready: the first that says something, in the order of this module's docstring."""
    status, events = pod.status, tuple(events)
    containers = tuple(_with_probes(each, pod.metadata.uid, events) for each in status.container_statuses)
    found = (
        ((status.reason, status.message) if status.reason else None)
        or _of_init_containers(status.init_container_statuses)
        or _of_containers(containers, ready=ready)
        or _of_scheduling(status.conditions)
        or _of_node(pod)
    )
    if not ready and found is None:
        found = explanation(events, pod.metadata.uid, started=status.phase == "Running")
    return found or _unready(status.conditions, ready, status.container_statuses)


def _of_init_containers(statuses: Iterable[ContainerStatus]) -> Reason | None:
    for init in statuses:
        found = _waiting(init) or _terminated(init) or (None if init.ready else _last(init))
        # A waiting main container says PodInitializing; the init container says why.
        if found and not (init.state.terminated and init.state.terminated.exit_code == 0):
            return found
    return None


def _of_containers(statuses: Iterable[ContainerStatus], *, ready: bool) -> Reason | None:
    finders = (_waiting, _terminated) if ready else (_waiting, _terminated, _last)
    return next((found for find in finders for status in statuses if (found := find(status))), None)


def _with_probes(container: ContainerStatus, uid: str, events: tuple[EventObject, ...]) -> ContainerStatus:
    """Returns the status with the probe's words for the ends that a probe brought about."""
    if not events:
        return container

    def told(state: ContainerState) -> ContainerState:
        ended = state.terminated
        finished_at = None if ended is None else storable(ended.finished_at)
        if ended is None or finished_at is None:
            return state
        why = failed_probe(events, uid, container.name, ended.started_at, finished_at)
        if why is None:
            return state
        return ContainerState(terminated=msgspec.structs.replace(ended, reason=UNHEALTHY, message=why))

    return msgspec.structs.replace(
        container, state=told(container.state), last_state=told(container.last_state)
    )


def _of_scheduling(conditions: Iterable[ObjectCondition]) -> Reason | None:
    scheduled = next((each for each in conditions if each.type == "PodScheduled"), None)
    if scheduled is None or scheduled.status != "False":
        return None
    return scheduled.reason, scheduled.message


def _of_node(pod: Pod) -> Reason | None:
    if not _node_lost(pod):
        return None
    return NODE_NOT_READY, f"the node {pod.spec.node_name} does not respond"


def _waiting(container: ContainerStatus) -> Reason | None:
    waiting = container.state.waiting
    if waiting is None or waiting.reason in ORDINARY:
        return None
    message, last = waiting.message, container.last_state.terminated
    if last and container.restart_count > 0 and waiting.reason in _FAILED_ATTEMPTS:
        return CRASH_LOOP, _ended_again(container, last)
    if last:
        message = f"{message}; last exit: {_exit(last)}" if message else f"last exit: {_exit(last)}"
    return waiting.reason, message


def _terminated(container: ContainerStatus) -> Reason | None:
    ended = container.state.terminated
    if ended is None:
        return None
    # Restarted once and ended again: the back-off that follows within moments is shown now, or the status would flap.
    # It follows a program that ends well, too: it is to run always.
    if container.restart_count > 0 and not container.ready and container.last_state.terminated:
        return CRASH_LOOP, _ended_again(container, ended)
    return ended.reason or "Terminated", ended.message or f"container {container.name}: {_exit(ended)}"


def _last(container: ContainerStatus) -> Reason | None:
    ended = container.last_state.terminated
    if ended is None or container.ready:
        return None
    return ended.reason or "Terminated", ended.message or f"container {container.name}: {_exit(ended)}"


def _restarts(pod: Pod) -> int:
    """Counts restarts as kubectl does: those of init containers until they are done, so of native sidecars always."""
    counted = [
        status
        for status in pod.status.init_container_statuses
        if not status.ready or status.state.running is not None
    ]
    return added_up(status.restart_count for status in (*counted, *pod.status.container_statuses))


def added_up(counts: Iterable[int]) -> int:
    """Returns the sum of counts, as far as it can be stored."""
    return min(sum(counts), MOST_COUNTED)


def _node_lost(pod: Pod) -> bool:
    """Returns whether the node controller speaks for a kubelet that is silent: it gives no reason, a kubelet does."""
    ready = next((each for each in pod.status.conditions if each.type == "Ready"), None)
    return bool(pod.spec.node_name) and ready is not None and ready.status == "False" and not ready.reason


def _ended_again(container: ContainerStatus, ended: Terminated) -> str:
    return f"container {container.name} ended again; last exit: {_exit(ended)}"


def _exit(ended: Terminated) -> str:
    words = f"{ended.reason or 'Terminated'}, exit code {ended.exit_code}"
    return f"{words}: {ended.message}" if ended.reason in _EXPLAINED_ENDS and ended.message else words


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
    """Returns when the main container began, and ended where it did not begin again."""
    if main is None:
        return None, None
    if main.state.running is not None:
        return main.state.running.started_at, None
    ended = main.state.terminated or main.last_state.terminated
    return (ended.started_at, ended.finished_at) if ended else (None, None)
