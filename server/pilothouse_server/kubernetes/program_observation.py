"""The state of one program of a pod, and the reason why it does not run.

Programs that run side by side are the pod's `containers`, and native sidecars: init containers with the restart policy
Always. The kubelet starts them again after a back-off, whether they failed or not. At first such a program is
`terminated`; it becomes `waiting` with the reason CrashLoopBackOff seconds later, and a native sidecar only tens of
seconds later. So a program that has ended after a restart counts as backing off immediately. Otherwise its state would
flap at each attempt.

A program counts as ready by the rule of kubectl: it is ready and runs. No program is ready on a node that does not
respond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from pilothouse_server.kubernetes.errors import shown
from pilothouse_server.kubernetes.events import UNHEALTHY, failed_probe
from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
    EventObject,
    Pod,
    PodContainer,
    Terminated,
    storable,
)
from pilothouse_server.values.programs import ProgramKind, ProgramState

# A reason in one word, and a message.
Reason = tuple[str, str]

CRASH_LOOP = "CrashLoopBackOff"
NODE_NOT_READY = "NodeNotReady"
START_ERROR = "StartError"
# Waiting reasons of an ordinary start.
ORDINARY = frozenset({"", "ContainerCreating", "PodInitializing"})
# Failed attempts to start. A back-off follows each within seconds, so these reasons appear between two back-offs.
_FAILED_ATTEMPTS = frozenset({"RunContainerError", START_ERROR, "PostStartHookError"})
# End reasons that the exit code does not explain, but the message does.
_EXPLAINED_ENDS = frozenset({START_ERROR, UNHEALTHY})
_ALWAYS = "Always"
_LONGEST_REASON = 100
_LONGEST_MESSAGE = 300
_LONGEST_IMAGE = 512


class ProgramObservation(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One program of one pod. `exit_*` describe how it ended last; `image` is the pod's, `image_id` the node's."""

    name: str
    kind: ProgramKind
    ready: bool = False
    restart_count: int = 0
    state: ProgramState = "waiting"
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    exit_code: int | None = None
    exit_reason: str = ""
    exited_at: datetime | None = None
    started_at: datetime | None = None


def observe_programs(
    pod: Pod, main_container: str, events: Iterable[EventObject] = ()
) -> Iterator[ProgramObservation]:
    """Yields the programs of a pod in the order of their start; `main_container` names the main one."""
    events = tuple(events)
    statuses = {
        each.name: each for each in pod.status.init_container_statuses + pod.status.container_statuses
    }
    lost = node_lost(pod)
    for program in pod.spec.init_containers:
        kind: ProgramKind = "native_sidecar" if program.restart_policy == _ALWAYS else "init"
        yield _observed(pod, program, kind, statuses.get(program.name), events, lost=lost)
    for program in pod.spec.containers:
        kind = "main" if program.name == main_container else "sidecar"
        yield _observed(pod, program, kind, statuses.get(program.name), events, lost=lost)


def _observed(
    pod: Pod,
    program: PodContainer,
    kind: ProgramKind,
    status: ContainerStatus | None,
    events: tuple[EventObject, ...],
    *,
    lost: bool,
) -> ProgramObservation:
    if status is None:
        return ProgramObservation(program.name, kind, image=program.image[:_LONGEST_IMAGE])
    status = with_probes(status, pod.metadata.uid, events)
    running, ended = status.state.running, status.state.terminated
    if running is not None:
        state: ProgramState = "running"
        reason, message = (NODE_NOT_READY, "") if lost else ("", "")
    else:
        reason, message = _why(status, kind)
        state = "waiting" if ended is None or reason == CRASH_LOOP else "terminated"
    begun = running or (ended if state == "terminated" else None)
    last = ended or status.last_state.terminated
    runs = running is not None and (kind != "native_sidecar" or status.started is True)
    return ProgramObservation(
        program.name,
        kind,
        status.ready and not lost and (runs or kind == "init"),
        status.restart_count,
        state,
        reason[:_LONGEST_REASON],
        shown(message)[:_LONGEST_MESSAGE] if message else "",
        program.image[:_LONGEST_IMAGE],
        status.image_id[:_LONGEST_IMAGE],
        None if last is None else last.exit_code,
        "" if last is None else last.reason[:_LONGEST_REASON],
        None if last is None else storable(last.finished_at),
        None if begun is None else storable(begun.started_at),
    )


def _why(status: ContainerStatus, kind: ProgramKind) -> Reason:
    """Returns why a program does not run.

    A back-off is described by the last exit, which does not change; the kubelet's message contains its seconds.
    """
    found = waiting(status) or terminated(status)
    last = status.state.terminated or status.last_state.terminated
    if found is None:
        return "", ""
    if found[0] == CRASH_LOOP and last is not None:
        return CRASH_LOOP, f"last exit: {exit_words(last)}"
    if status.state.terminated is not None and last is not None:
        done = kind == "init" and last.exit_code == 0
        return last.reason or "Terminated", last.message or ("" if done else exit_words(last))
    return found


def native_sidecars(pod: Pod) -> frozenset[str]:
    """Returns the names of a pod's init containers that run as long as the pod does."""
    if not pod.spec.init_containers:
        return frozenset()
    return frozenset(each.name for each in pod.spec.init_containers if each.restart_policy == _ALWAYS)


def with_probes(container: ContainerStatus, uid: str, events: tuple[EventObject, ...]) -> ContainerStatus:
    """Returns the status; an end that a probe caused gets the probe's finding as its message."""
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


def waiting(container: ContainerStatus) -> Reason | None:
    """Returns why a program waits; None during an ordinary start."""
    waits = container.state.waiting
    if waits is None or waits.reason in ORDINARY:
        return None
    message, last = waits.message, container.last_state.terminated
    if last and container.restart_count > 0 and waits.reason in _FAILED_ATTEMPTS:
        return CRASH_LOOP, _ended_again(container, last)
    if last:
        message = f"{message}; last exit: {exit_words(last)}" if message else f"last exit: {exit_words(last)}"
    return waits.reason, message


def terminated(container: ContainerStatus) -> Reason | None:
    """Returns how a program ended that has not been started again yet."""
    ended = container.state.terminated
    if ended is None:
        return None
    # A program that was restarted once and ended again: the back-off that follows within moments is shown now, or the
    # status would flap. The back-off also follows a program that succeeds, because it is to run always.
    if container.restart_count > 0 and not container.ready and container.last_state.terminated:
        return CRASH_LOOP, _ended_again(container, ended)
    return _end(container, ended)


def last_end(container: ContainerStatus) -> Reason | None:
    """Returns how a program ended before it was started again, while it is not ready."""
    ended = container.last_state.terminated
    return None if ended is None or container.ready else _end(container, ended)


def _end(container: ContainerStatus, ended: Terminated) -> Reason:
    return ended.reason or "Terminated", ended.message or f"program {container.name}: {exit_words(ended)}"


def _ended_again(container: ContainerStatus, ended: Terminated) -> str:
    return f"program {container.name} ended again; last exit: {exit_words(ended)}"


def exit_words(ended: Terminated) -> str:
    """Returns an end as text for people, such as `OOMKilled, exit code 137`."""
    words = f"{ended.reason or 'Terminated'}, exit code {ended.exit_code}"
    return f"{words}: {ended.message}" if ended.reason in _EXPLAINED_ENDS and ended.message else words


def node_lost(pod: Pod) -> bool:
    """Returns whether the node controller set `Ready` for a silent kubelet: it sets no reason, but a kubelet does."""
    ready = next((each for each in pod.status.conditions if each.type == "Ready"), None)
    return bool(pod.spec.node_name) and ready is not None and ready.status == "False" and not ready.reason
