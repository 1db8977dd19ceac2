"""The state of each program of a container's pods, as one value per program.

The counts cover all living pods, like `ready_replicas` and `restart_count`, because old pods serve while new ones
start. The state, its reason and the times are those of one pod: among the pods of the newest template, the pod in which
the program's state is the worst, and among equals the oldest, so that the value changes only if a program does.
Programs that only older templates have are left out. Programs that others have added to the pods are included, as in
kubectl's column READY.

A program that is starting normally has no reason. In a back-off, its message is how it ended last, without the
kubelet's count of seconds, because each change of the value is an event for all watchers.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workloads import Newest
from pilothouse_server.kubernetes.events import UNHEALTHY
from pilothouse_server.kubernetes.objects import EventObject, Pod
from pilothouse_server.kubernetes.pod_observation import MOST_COUNTED, revision_of
from pilothouse_server.kubernetes.program_observation import ProgramObservation, observe_programs
from pilothouse_server.values.programs import ProgramStatus

# A container has 25 at most; the rest is for programs that others have added.
MOST_PROGRAMS = 40
_BEGIN = datetime.min.replace(tzinfo=UTC)


def program_names(container: Container) -> list[str]:
    """Returns the names of the programs of its pods, the main one first; those that others have added are the last."""
    own = dict.fromkeys(program.name for _, program in container.programs())
    return list(own | dict.fromkeys(each.name for each in container.observed.programs))


class _Sum:
    """One program, added up over pods. `worst`: its state in `pod`, where it is the worst; a lower rank is worse."""

    __slots__ = ("pod", "pods", "rank", "ready_pods", "restart_count", "worst")

    def __init__(self, pod: Pod, worst: ProgramObservation) -> None:
        self.pod, self.worst, self.rank = pod, worst, _rank(worst)
        self.pods = self.ready_pods = self.restart_count = 0

    def compare(self, pod: Pod, program: ProgramObservation) -> None:
        """Uses the state in another pod instead, if it is worse."""
        if (rank := _rank(program)) < self.rank:
            self.pod, self.worst, self.rank = pod, program, rank

    def count(self, program: ProgramObservation) -> None:
        """Adds one pod to the counts."""
        self.pods += 1
        self.ready_pods += program.ready
        self.restart_count += program.restart_count


def program_statuses(
    container: Container, pods: Iterable[Pod], newest: Newest | None, events: Iterable[EventObject] = ()
) -> tuple[ProgramStatus, ...]:
    """Returns the programs of the living pods in the order of their start; empty if there are no such pods."""
    main, events = container.spec.pod_container_name, tuple(events)
    living = sorted(filter(_is_living, pods), key=_age)
    shown = [pod for pod in living if newest is None or revision_of(pod) == newest.name] or living
    sums: dict[str, _Sum] = {}
    for pod in shown:
        for program in observe_programs(pod, main, events):
            if (found := sums.get(program.name)) is None:
                found = sums[program.name] = _Sum(pod, program)
            else:
                found.compare(pod, program)
            found.count(program)
    for pod in _others(living, shown):
        for program in observe_programs(pod, main):
            if program.name in sums:
                sums[program.name].count(program)
    if len(sums) > MOST_PROGRAMS:
        ours = {main, *(each.name for each in container.others)}
        sums = {name: found for name, found in sums.items() if name in ours}
    before = {each.name: each for each in container.observed.programs}
    return tuple(_explained(_status(found), before.get(name)) for name, found in sums.items())


def _status(found: _Sum) -> ProgramStatus:
    worst = found.worst
    return ProgramStatus(
        worst.name,
        worst.kind,
        found.pods,
        found.ready_pods,
        min(found.restart_count, MOST_COUNTED),
        worst.state,
        worst.reason,
        worst.message,
        worst.image,
        worst.image_id,
        worst.exit_code,
        worst.exit_reason,
        worst.exited_at,
        worst.started_at,
        found.pod.metadata.name,
    )


def _explained(now: ProgramStatus, before: ProgramStatus | None) -> ProgramStatus:
    """Keeps the exit reason "killed by a probe" as long as the same exit is observed.

    Only events report it, and not every observation has the events.
    """
    if before is None or before.exit_reason != UNHEALTHY or now.exit_reason == UNHEALTHY:
        return now
    if (now.pod, now.exited_at) != (before.pod, before.exited_at):
        return now
    kept = msgspec.structs.replace(now, exit_reason=UNHEALTHY)
    if now.state == "running" or now.state != before.state:
        return kept
    return msgspec.structs.replace(kept, reason=before.reason, message=before.message)


def _rank(program: ProgramObservation) -> int:
    """Ranks the worst first: 0 failing, 1 not started, 2 running but not ready, 3 ready or completed."""
    if program.ready:
        return 3
    if program.state == "running":
        return 2
    return 0 if program.reason else 1


def _is_living(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is None and pod.status.phase not in ("Failed", "Succeeded")


def _others(living: list[Pod], shown: list[Pod]) -> list[Pod]:
    """Returns the living pods of older templates."""
    if len(shown) == len(living):
        return []
    names = {pod.metadata.name for pod in shown}
    return [pod for pod in living if pod.metadata.name not in names]


def _age(pod: Pod) -> tuple[datetime, str]:
    return pod.metadata.creation_timestamp or _BEGIN, pod.metadata.name
