"""Kubernetes Events: reports of a cluster about its objects, and which of them explain a problem.

There are many; they live for about an hour, and are counted instead of repeated. So they are not stored: `events_of`
reads the events of some objects on request. The explanation of a status is in the status itself if it has one (a pod's
`state`, a condition), in an event if it has none (`explanation`), and in further events (`warnings`).

Events are listed by object name, as `kubectl describe` does: a list of the whole namespace would include all its other
objects, and field selectors cannot name several objects. If an object was created again under its old name, only events
of the newest uid count; pods are identified by their uid.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import EVENTS, EventObject

MOST_EVENTS = 20
MESSAGE_LIMIT = 4096
WARNING = "Warning"
_AT_ONCE = 8
_BEGIN = datetime.min.replace(tzinfo=UTC)
UNHEALTHY = "Unhealthy"
# Message about a program that a probe has killed.
KILLED = "; the container was killed"
# Reasons that keep a pod with a node from starting.
_OBSTACLES = frozenset({
    "FailedAttachVolume", "FailedMapVolume", "FailedMount", "FailedCreatePodContainer", "FailedCreatePodSandBox",
    "FailedPodSandBoxStatus", "FailedPrepareDynamicResources", "FailedSync", "NetworkNotReady", "NodeNotReady",
})  # fmt: skip
# Status reasons that only events explain.
TOLD_BY_EVENTS = _OBSTACLES | {UNHEALTHY}
# Warnings that the history stores. Others are about the node, or occur for healthy pods too: too many name servers,
# variables whose names a shell cannot read. They do not explain the state of the container.
_EXPLAINING = TOLD_BY_EVENTS | {
    "BackOff", "DeadlineExceeded", "Evicted", "ExceededGracePeriod", "FailedBinding", "FailedCreate", "FailedKillPod",
    "FailedPostStartHook", "FailedPreStopHook", "FailedScheduling", "FailedToRetrieveImagePullSecret",
    "FailedValidation", "FileSystemResizeFailed", "NodeAffinity", "OOMKilling", "Preempting", "ProvisioningFailed",
    "UnexpectedAdmissionError", "VolumeResizeFailed",
}  # fmt: skip
# The message of a kubelet that kills a program; the back-off and the restart follow.
_KILLED = re.compile(r"Container (?P<container>\S+) failed (?P<probe>liveness|startup) probe")
FAILED_CREATE: Final = "FailedCreate"
_PROGRAM = re.compile(r"spec\.(containers|initContainers)\{(?P<name>[^}]+)\}")
# Kubernetes' times are whole seconds.
_SECOND = timedelta(seconds=1)
# Events that end a warning about a pod.
_ENDED_BY = {
    "FailedScheduling": "Scheduled",
    "FailedAttachVolume": "SuccessfulAttachVolume",
    "FailedMount": "Started",
}
# An older event does not describe the present state.
_FRESH = timedelta(minutes=10)


class EventSubject(msgspec.Struct, frozen=True, order=True):
    """An object that events may be about; `uid` is empty if it is not known."""

    kind: str
    name: str
    uid: str = ""


class KubernetesEvent(msgspec.Struct, frozen=True):
    """One event as shown to callers."""

    type: str
    reason: str
    message: str
    count: int
    first_time: datetime | None
    last_time: datetime | None
    kind: str
    name: str


class Warned(msgspec.Struct, frozen=True):
    """A warning as the history stores it; the message begins with the object that it is about."""

    reason: str
    message: str


async def events_of(
    client: ClusterClient, namespace: str, subjects: Iterable[EventSubject]
) -> tuple[KubernetesEvent, ...]:
    """Returns the newest events of some objects of a namespace, newest first. Raises ClusterError."""
    subjects = tuple(subjects)
    listed = await list_events(client, namespace, sorted({subject.name for subject in subjects}))
    return newest(listed, subjects)


async def list_events(client: ClusterClient, namespace: str, names: Sequence[str]) -> tuple[EventObject, ...]:
    """Returns all events about objects of these names, of any kind. Raises ClusterError."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def about(name: str) -> tuple[EventObject, ...]:
        async with gate:
            page = await client.list(EVENTS, namespace, field_selector=f"involvedObject.name={name}")
            return page.items

    try:
        async with asyncio.TaskGroup() as group:
            requests = [group.create_task(about(name)) for name in names]
    except* ClusterError as failed:
        # The requests fail alike.
        raise _first(failed) from None
    return tuple(event for task in requests for event in task.result())


def newest(events: Iterable[EventObject], subjects: Iterable[EventSubject]) -> tuple[KubernetesEvent, ...]:
    """Returns the events of the subjects as callers see them: newest first, and at most MOST_EVENTS."""
    uids = {(subject.kind, subject.name): subject.uid for subject in subjects}
    found = sorted(
        (event for event in events if _place(event) in uids),
        key=lambda event: (event.time or _BEGIN, _version(event)),
        reverse=True,
    )
    for event in found:
        if not uids[_place(event)]:
            uids[_place(event)] = event.involved_object.uid
    of_subjects = [event for event in found if event.involved_object.uid == uids[_place(event)]]
    return tuple(map(shown, of_subjects[:MOST_EVENTS]))


def explanation(
    events: Iterable[EventObject], uid: str, *, started: bool, several: bool = False
) -> tuple[str, str] | None:
    """Returns reason and message of the warning that explains why a pod is not ready, or None.

    In a pod of `several` programs the message begins with the name of the program whose probe fails.

    If a pod has `started`, only findings of its probes explain it; earlier obstacles are over. If it has not, a volume
    that cannot be attached is the cause, and later complaints of the kubelet are its effects. Other warnings explain
    nothing, however new they are.
    """
    mine = sorted(
        (event for event in events if event.involved_object.uid == uid),
        key=lambda event: event.time or _BEGIN,
        reverse=True,
    )
    if started:
        found = next((event for event in mine if event.reason == UNHEALTHY), None)
    else:
        attaching = next(
            (e for e in mine if e.reason in ("FailedAttachVolume", "SuccessfulAttachVolume")), None
        )
        found = next((event for event in mine if event.type == WARNING and event.reason in _OBSTACLES), None)
        if attaching is not None and attaching.type == WARNING:
            found = attaching
    if found is None:
        return None
    about = _PROGRAM.fullmatch(found.involved_object.field_path) if several else None
    where = f"program {about['name']}: " if about is not None else ""
    return found.reason, f"{where}{found.message.strip()}"


def refused_pod(events: Iterable[EventObject], uid: str) -> str | None:
    """Returns the message of a controller that could not create a pod, or None. `uid`: of the pods' owner.

    If the controller has created a pod since, it is None.
    """
    mine = [
        event
        for event in events
        if event.involved_object.uid == uid and event.reason in (FAILED_CREATE, "SuccessfulCreate")
    ]
    last = max(mine, key=lambda event: (event.time or _BEGIN, _version(event)), default=None)
    return None if last is None or last.reason != FAILED_CREATE else last.message.strip()


def failed_probe(
    events: Iterable[EventObject], uid: str, container: str, began: datetime | None, ended: datetime
) -> str | None:
    """Returns the finding of the probe that killed a container of a pod between two times, or None."""
    mine = [event for event in events if event.involved_object.uid == uid and event.time is not None]
    kill = next(
        (
            found
            for event in mine
            if (found := _KILLED.match(event.message)) is not None
            and found["container"] == container
            and (began or _BEGIN) <= (event.time or _BEGIN) <= ended + _SECOND
        ),
        None,
    )
    if kill is None:
        return None
    words = f"{kill['probe'].capitalize()} probe failed"
    told = max(
        (
            e
            for e in mine
            if e.reason == UNHEALTHY and e.message.startswith(words) and _is_about(e, container)
        ),
        key=lambda event: event.time or _BEGIN,
        default=None,
    )
    detail = told.message.removeprefix(words).strip(": \n") if told is not None else ""
    return f"{words}{f': {detail}' if detail else ''}{KILLED}"


def _is_about(event: EventObject, container: str) -> bool:
    path = event.involved_object.field_path
    return not path or path.endswith(f"{{{container}}}")


def warnings(
    events: Iterable[EventObject], uids: Iterable[str], *, beside: str, now: datetime
) -> tuple[Warned, ...]:
    """Returns the newest warning of each reason about objects of these uids, for the history, by reason.

    Warnings are left out if their reason is `beside` (the reason of the status itself), if a later event ended them, if
    they are older than ten minutes, or if they do not explain the state of the container.
    """
    uids, found = set(uids), dict[str, EventObject]()
    mine = [event for event in events if event.involved_object.uid in uids]
    last: dict[tuple[str, str], datetime] = {}
    for event in mine:
        place = event.involved_object.uid, event.reason
        last[place] = max(event.time or _BEGIN, last.get(place, _BEGIN))
    for event in sorted(mine, key=lambda event: event.time or _BEGIN):
        time = event.time or _BEGIN
        ended = last.get((event.involved_object.uid, _ENDED_BY.get(event.reason, "")))
        if (
            event.type == WARNING
            and event.reason in _EXPLAINING - {beside}
            and now - time < _FRESH
            and (ended is None or ended < time)
        ):
            found[event.reason] = event
    return tuple(_warned(found[reason]) for reason in sorted(found))


def _warned(event: EventObject) -> Warned:
    about = event.involved_object
    return Warned(event.reason[:100], f"{about.kind} {about.name}: {event.message.strip()}"[:MESSAGE_LIMIT])


def shown(event: EventObject) -> KubernetesEvent:
    """Returns an event as callers see it."""
    return KubernetesEvent(
        type=event.type,
        reason=event.reason,
        message=event.message.strip()[:MESSAGE_LIMIT],
        count=event.times,
        first_time=event.first_time,
        last_time=event.time,
        kind=event.involved_object.kind,
        name=event.involved_object.name,
    )


def _place(event: EventObject) -> tuple[str, str]:
    return event.involved_object.kind, event.involved_object.name


def _version(event: EventObject) -> int:
    """Returns a number that orders events of one second: their version, which is mostly a number."""
    version = event.metadata.resource_version
    return int(version) if version.isdecimal() else 0


def _first(group: BaseExceptionGroup[ClusterError]) -> ClusterError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
