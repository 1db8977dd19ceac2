"""Waits until a cluster has applied the desired state of a container or a namespace.

Mutations return before the cluster has applied them, so waiting means watching. `judge` decides. A container has
reached its goal when the requested generation is applied, its status is the desired one and, if the goal is running,
its rollout has ended: old pods may serve long after a change that will never run. It has failed when the cluster
refuses it, a newest pod restarts, an image cannot be pulled or the cluster has given up the rollout.

A container whose goal is running must also stay up: a program that exits after some seconds is ready for a moment each
time. So its condition `Stable` must have been TRUE for `Patience.stable_for` seconds (`ContainerWait`). No event marks
the end of that time. It is measured by the server's clock alone, from the watch's responses (`Change.server_time`); a
bookmark each second sends the time while nothing changes. While the watch was cut, for example because the server
restarted, the cluster may have been unobserved, so the time before a cut does not count.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import grpc

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.errors import DeadlineExceededError, NotFoundError, PilothouseError
from pilothouse_client.streams import Change, ChangeKind
from pilothouse_client.transport import AsyncTransport, BlockingTransport

if TYPE_CHECKING:
    from pilothouse.namespace.v1.namespace_pb2 import Cluster, Namespace


class Goal(enum.Enum):
    """The state to wait for. `APPLIED` only requires that the cluster has accepted the desired state.

    A Job that has succeeded also counts as `RUNNING`. `SUCCEEDED` is for Jobs alone. A CronJob is running as soon as
    its schedule is active.

    >>> web = client.containers.create(container=Container(namespace=namespace, name="web", image="nginx"))
    >>> client.wait_for(web, Goal.APPLIED).name
    'web'
    """

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    PAUSED = "paused"
    APPLIED = "applied"
    DELETED = "deleted"


class WaitError(PilothouseError):
    """The resource did not reach the goal. `container` is the last known state of a container; `last_lines` are the
    last lines of its program, if it restarted and the caller may read its log. The reason is WAIT_FAILED.

    >>> web = Container(namespace=namespace, name="web", image="nginx")
    >>> web.pod_annotations["simulate.pilothouse.dev/behavior"] = "image-pull-error"
    >>> client.wait_for(client.containers.create(container=web))
    Traceback (most recent call last):
    pilothouse_client.waiting.WaitError: web: ...
    """

    def __init__(
        self, message: str, last: pb.Container | Namespace | Cluster, last_lines: Sequence[str] = ()
    ) -> None:
        super().__init__(grpc.StatusCode.FAILED_PRECONDITION, message, reason="WAIT_FAILED")
        self.container = last if isinstance(last, pb.Container) else None
        self.last_lines = tuple(last_lines)

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for which all requested pods must have run without a restart, and seconds for which the cluster may have
    no room for a pod while no autoscaler adds a node."""

    stable_for: float = 10.0
    unschedulable_for: float = 60.0

    @property
    def in_words(self) -> str:
        """The condition that a running container still has to meet, as text."""
        return f"waiting until it has run for {self.stable_for:g} s without a restart"


DEFAULT_PATIENCE = Patience()


class WaitOutcome(enum.Enum):
    """The result of `judge`."""

    WAITING = "waiting"
    ARRIVED = "arrived"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, with the reason of a failure, or the remaining condition of a running container. `no_room`: no node
    has room, and the caller has not yet checked for an autoscaler."""

    outcome: WaitOutcome
    why: str = ""
    no_room: bool = False


_STATUS_OF_GOAL = {
    Goal.STOPPED: pb.CONTAINER_STATUS_STOPPED,
    Goal.PAUSED: pb.CONTAINER_STATUS_PAUSED,
    Goal.SUCCEEDED: pb.CONTAINER_STATUS_SUCCEEDED,
}
KINDS_WITH_RUNS = frozenset({pb.WORKLOAD_KIND_JOB, pb.WORKLOAD_KIND_CRON_JOB})
# Reasons of a container that is to be stopped, while it still has pods.
_PODS_LEFT = frozenset({"ScalingDown", "Terminating"})
FALSE, TRUE = resource_pb2.CONDITION_STATUS_FALSE, resource_pb2.CONDITION_STATUS_TRUE
# Seconds between bookmarks: a wait ends at most this long after the container has run for long enough.
BOOKMARK_SECONDS = 1
_MOST_LAST_LINES = 10
UNSCHEDULABLE = "Unschedulable"
# Reasons of a pod whose image cannot be pulled.
_IMAGE_ERRORS = frozenset({
    "ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName",
    "RegistryUnavailable", "SignatureValidationFailed",
})  # fmt: skip
_FIRST_LOOK_SECONDS, _MOST_LOOK_SECONDS = 0.1, 2.0


def judge(asked: pb.Container, seen: pb.Container, goal: Goal) -> Verdict:
    """Returns whether `seen` is the state that the call that returned `asked` has requested."""
    follows = not seen.reconciling and seen.observed_generation >= asked.generation
    refusal = _condition(seen, "Applied", FALSE)
    # A refusal that existed when the call returned belongs to an earlier state, until that call's generation is
    # observed.
    if refusal is not None and (follows or refusal != _condition(asked, "Applied", FALSE)):
        return Verdict(WaitOutcome.FAILED, f"the cluster refuses it: {refusal.message or refusal.reason}")
    if not follows or goal is Goal.DELETED:
        return Verdict(WaitOutcome.WAITING)
    if goal is Goal.APPLIED:
        return Verdict(WaitOutcome.ARRIVED)
    if seen.workload_kind == pb.WORKLOAD_KIND_JOB and goal in (Goal.RUNNING, Goal.SUCCEEDED):
        return _judge_run(seen, goal)
    if goal is not Goal.RUNNING:
        ended = seen.status == _STATUS_OF_GOAL[goal] and seen.reason not in _PODS_LEFT
        return Verdict(WaitOutcome.ARRIVED if ended else WaitOutcome.WAITING)
    if why := failed_for_good(seen):
        return Verdict(WaitOutcome.FAILED, why)
    return Verdict(WaitOutcome.ARRIVED if runs_completely(seen) else WaitOutcome.WAITING)


def _judge_run(seen: pb.Container, goal: Goal) -> Verdict:
    """Returns whether the newest run of a Job has reached the goal; a failed image pull never fails the run."""
    if seen.status == pb.CONTAINER_STATUS_FAILED:
        return Verdict(WaitOutcome.FAILED, " ".join(filter(None, (seen.reason, seen.message))))
    arrived = seen.status == pb.CONTAINER_STATUS_SUCCEEDED or (
        goal is Goal.RUNNING and seen.status == pb.CONTAINER_STATUS_RUNNING
    )
    return Verdict(WaitOutcome.ARRIVED if arrived else WaitOutcome.WAITING)


def runs_completely(container: pb.Container) -> bool:
    """Returns whether the container runs, or has zero replicas, and its rollout has ended or is held.

    Call it only for a container whose generation is observed.
    """
    if container.status == pb.CONTAINER_STATUS_STOPPED:
        return _wants_no_pods(container)
    pending = _condition(container, "RolledOut", FALSE)
    return container.status == pb.CONTAINER_STATUS_RUNNING and (
        pending is None or pending.reason == "RolloutHeld"
    )


def failed_for_good(container: pb.Container) -> str:
    """Returns why waiting will not make a container run; empty if it may. Its generation must be observed."""
    pending = _condition(container, "RolledOut", FALSE)
    why = " ".join(filter(None, (container.reason, container.message)))
    if restarts(container):
        stable = _condition(container, "Stable", FALSE)
        return f"a newest pod restarts: {stable.message if stable else why}"
    if given_up(container):
        return f"the cluster has given up its rollout: {why}"
    if pending is not None and pending.reason in _IMAGE_ERRORS:
        return f"its image cannot be pulled: {pending.reason} {pending.message}".rstrip()
    # Pods of the previous version may still fail while their replacements start.
    passing = pending is not None and pending.reason == "RollingOut"
    broken = container.status == pb.CONTAINER_STATUS_FAILED
    return (why or "its pods fail") if broken and not passing else ""


def restarts(container: pb.Container) -> bool:
    """Returns whether a program of the newest pods has ended and was, or will be, restarted."""
    stable = _condition(container, "Stable", FALSE)
    return stable is not None and stable.reason == "Restarted"


def given_up(container: pb.Container) -> bool:
    """Returns whether the rollout has made no progress within the cluster's progress deadline."""
    pending = _condition(container, "RolledOut", FALSE)
    return pending is not None and pending.reason == "ProgressDeadlineExceeded"


def refused(container: pb.Container) -> bool:
    """Returns whether the cluster refuses the desired state."""
    return _condition(container, "Applied", FALSE) is not None


def starts_from_nothing(container: pb.Container) -> bool:
    """Returns whether the container is stopped only because it had no replicas; it runs once it has some."""
    stopped = container.status == pb.CONTAINER_STATUS_STOPPED and container.reason == "NoReplicas"
    return stopped and not _wants_no_pods(container)


def _wants_no_pods(container: pb.Container) -> bool:
    return container.HasField("replicas") and container.replicas == 0


def _condition(
    container: pb.Container | Namespace, type_: str, status: resource_pb2.ConditionStatus.ValueType
) -> resource_pb2.Condition | None:
    return next((c for c in container.conditions if c.type == type_ and c.status == status), None)


class ServerTime:
    """The server's time, as a watch sends it. `now` is None until it has sent one."""

    def __init__(self) -> None:
        self.now: datetime | None = None
        # Whether the watch has returned the whole current state.
        self.in_step = False
        # The server's time after the last cut of the watch; None if it was never cut.
        self._whole_since: datetime | None = None
        self._was_cut = False

    def note(self, change: Change[Any]) -> None:
        """Records whether the stream was cut before this change, and the time by the server's clock."""
        self._was_cut = self._was_cut or change.resumed or change.kind is ChangeKind.RESTARTED
        if change.kind is ChangeKind.RESTARTED:
            self.in_step = False
        elif change.resume_token:
            self.in_step = True
        if change.server_time is None:
            return
        self.now = change.server_time
        if self._was_cut:
            self._whole_since, self._was_cut = self.now, False

    def seconds_since(self, moment: datetime) -> float:
        """Returns the seconds since a moment, without the time before a cut; 0 if the time is unknown."""
        if self.now is None:
            return 0.0
        begin = moment if self._whole_since is None else max(moment, self._whole_since)
        return (self.now - begin).total_seconds()


class ContainerWait:
    """Judges each state of one container. `scales_up` returns whether an autoscaler adds a node for it."""

    def __init__(
        self,
        asked: pb.Container,
        goal: Goal,
        patience: Patience = DEFAULT_PATIENCE,
        scales_up: Callable[[pb.Container], bool] = lambda _container: False,
    ) -> None:
        self._asked = asked
        self._goal = goal
        self._patience = patience
        self._scales_up = scales_up
        self._no_room_since: datetime | None = None

    def judge(self, seen: pb.Container, time: ServerTime) -> Verdict:
        """Returns whether the goal is reached by now. Call it after each response: time alone can end the wait."""
        verdict = judge(self._asked, seen, self._goal)
        has_runs = seen.workload_kind in KINDS_WITH_RUNS
        if self._goal is not Goal.RUNNING or has_runs or seen.status == pb.CONTAINER_STATUS_STOPPED:
            return verdict
        if verdict.outcome is WaitOutcome.WAITING:
            return self._without_room(seen, time)
        if verdict.outcome is WaitOutcome.ARRIVED and not self._is_stable(seen, time):
            return Verdict(WaitOutcome.WAITING, self._patience.in_words)
        return verdict

    def _is_stable(self, seen: pb.Container, time: ServerTime) -> bool:
        if not time.in_step or seen.HasField("stale_since"):
            return False
        stable = _condition(seen, "Stable", TRUE)
        if stable is None:
            return False
        since = stable.last_transition_time.ToDatetime(UTC)
        return time.seconds_since(since) >= self._patience.stable_for

    def wait_for_node(self, time: ServerTime) -> None:
        """Restarts the count of the time without room."""
        self._no_room_since = time.now

    def _without_room(self, seen: pb.Container, time: ServerTime) -> Verdict:
        pending = _condition(seen, "RolledOut", FALSE)
        if time.now is None or pending is None or pending.reason != UNSCHEDULABLE:
            self._no_room_since = None
        elif self._no_room_since is None:
            self._no_room_since = time.now
        elif time.seconds_since(self._no_room_since) >= self._patience.unschedulable_for:
            if not self._scales_up(seen):
                room = f"no node has had room for it for {self._patience.unschedulable_for:g} s"
                why = f"{room}, and no autoscaler adds one: {pending.message}"
                return Verdict(WaitOutcome.FAILED, why, no_room=True)
            self._no_room_since = time.now
        return Verdict(WaitOutcome.WAITING)


class ContainerFollower:
    """The state of a wait between two responses of its watch; blocking and asynchronous waits share it."""

    def __init__(self, asked: pb.Container, goal: Goal, waiting: ContainerWait) -> None:
        self.last = asked
        self._asked, self._goal, self._waiting = asked, goal, waiting
        self._time = ServerTime()
        self._present = False

    def take(self, change: Change[pb.Container], progress: Callable[[pb.Container], Any]) -> Verdict:
        """Returns whether the goal is reached with this change.

        Raises WaitError if the container is deleted and `DELETED` is not the goal."""
        self._time.note(change)
        container, is_it = change.resource, change.resource.uid == self._asked.uid
        if change.kind is ChangeKind.RESTARTED:
            self._present = False
        elif (change.kind is ChangeKind.SYNCED and not self._present) or (
            change.kind is ChangeKind.DELETED and is_it
        ):
            self.last = _gone(self.last, self._goal)
            return Verdict(WaitOutcome.ARRIVED)
        elif change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED) and is_it:
            self._present, self.last = True, container
            progress(container)
        return self._waiting.judge(self.last, self._time) if self._present else Verdict(WaitOutcome.WAITING)

    def wait_for_node(self) -> None:
        """Continues although no node has room, because an autoscaler adds one."""
        self._waiting.wait_for_node(self._time)


def scales_up(client: Nouns[BlockingTransport], container: pb.Container) -> bool:
    """Returns whether an autoscaler adds a node for a pod of the container; True if that is unknown."""
    try:
        return _adds_node(client.containers.get.send(_with_events(container)))
    except PilothouseError:
        return True


def _with_events(container: pb.Container) -> pb.GetContainerRequest:
    return pb.GetContainerRequest(namespace=container.namespace, name=container.name, include_events=True)


def _adds_node(answer: pb.GetContainerResponse) -> bool:
    return bool(answer.events_unavailable) or any(each.reason == "TriggeredScaleUp" for each in answer.events)


def _restarted(container: pb.Container) -> str:
    """Returns the name of the program that ended last, without finished init programs; empty means the main one."""
    ended = [
        each
        for each in container.programs
        if each.HasField("exit_code") and not (each.kind == pb.PROGRAM_KIND_INIT and each.exit_code == 0)
    ]
    last = max(ended, key=lambda each: each.exit_time.ToNanoseconds(), default=None)
    return last.name if last is not None and last.kind != pb.PROGRAM_KIND_MAIN else ""


def last_lines(client: Nouns[BlockingTransport], container: pb.Container) -> list[str]:
    """Returns the last lines that the program of a newest pod wrote before it restarted.

    Empty if no pod restarts, if the log is gone, or if the caller may not read it.
    """
    if not restarts(container):
        return []
    program = _restarted(container)
    stable = _condition(container, "Stable", FALSE)
    message = stable.message if stable else ""

    def is_newest(pod: str) -> bool:
        if container.replica_set_name:
            return pod.startswith(f"{container.replica_set_name}-")
        # Pods that no ReplicaSet owns keep their names when their template changes: the message names the pod that
        # restarted.
        return f" of pod {pod} " in message

    # A program that was not restarted yet has no previous log; its lines are in the current one.
    for previous in (True, False):
        lines: dict[str, list[str]] = {}
        try:
            with client.containers.stream_logs(
                namespace=container.namespace,
                name=container.name,
                program=program,
                previous=previous,
                tail_lines=_MOST_LAST_LINES,
            ) as answers:
                for entry in (each for answer in answers for each in answer.entries):
                    if is_newest(entry.pod):
                        lines.setdefault(entry.pod, []).append(entry.line.decode(errors="replace"))
        except PilothouseError:
            continue
        if lines:
            return max(lines.values(), key=len)
    return []


def wait_for(
    client: Nouns[BlockingTransport],
    asked: pb.Container,
    goal: Goal,
    *,
    timeout: float,
    patience: Patience = DEFAULT_PATIENCE,
    progress: Callable[[pb.Container], Any] = lambda _container: None,
) -> pb.Container:
    """Watches until the container that a mutation returned (`asked`) has reached the goal; returns its last state.

    `progress` is called with each state on the way. Raises WaitError if the container fails, is deleted, or `timeout`
    seconds pass.
    """
    waiting = ContainerWait(asked, goal, patience, lambda seen: scales_up(client, seen))
    follower = ContainerFollower(asked, goal, waiting)
    patient = client.with_options(timeout=timeout)
    try:
        with patient.containers.watch(
            namespace=asked.namespace, name=asked.name, bookmark_period_seconds=BOOKMARK_SECONDS
        ) as watch:
            for change in watch:
                verdict = follower.take(change, progress)
                if verdict.outcome is WaitOutcome.ARRIVED:
                    return follower.last
                if verdict.outcome is WaitOutcome.FAILED:
                    lines = last_lines(client, follower.last)
                    raise WaitError(f"{asked.name}: {verdict.why}", follower.last, lines)
    except DeadlineExceededError:
        raise WaitError(_too_late(follower.last, goal, timeout, patience), follower.last) from None
    raise WaitError(f"{asked.name}: the watch was closed", follower.last)


async def wait_for_async(
    client: Nouns[AsyncTransport],
    asked: pb.Container,
    goal: Goal,
    *,
    timeout: float,
    patience: Patience = DEFAULT_PATIENCE,
    progress: Callable[[pb.Container], Any] = lambda _container: None,
) -> pb.Container:
    """As `wait_for`, for an asynchronous client; a WaitError has no `last_lines`."""
    follower = ContainerFollower(asked, goal, ContainerWait(asked, goal, patience))
    patient = client.with_options(timeout=timeout)
    try:
        async with patient.containers.watch(
            namespace=asked.namespace, name=asked.name, bookmark_period_seconds=BOOKMARK_SECONDS
        ) as watch:
            async for change in watch:
                verdict = follower.take(change, progress)
                if verdict.outcome is WaitOutcome.ARRIVED:
                    return follower.last
                if verdict.no_room and await _scales_up_async(client, follower.last):
                    follower.wait_for_node()
                elif verdict.outcome is WaitOutcome.FAILED:
                    raise WaitError(f"{asked.name}: {verdict.why}", follower.last)
    except DeadlineExceededError:
        raise WaitError(_too_late(follower.last, goal, timeout, patience), follower.last) from None
    raise WaitError(f"{asked.name}: the watch was closed", follower.last)


async def _scales_up_async(client: Nouns[AsyncTransport], container: pb.Container) -> bool:
    try:
        return _adds_node(await client.containers.get.send(_with_events(container)))
    except PilothouseError:
        return True


def wait_for_run(
    client: Nouns[BlockingTransport], asked: pb.Container, name: str, *, timeout: float
) -> pb.Run:
    """Watches until the run of this name has succeeded; returns it.

    Raises WaitError if it fails or is removed, or `timeout` seconds pass.
    """
    last = pb.Run(name=name, status=pb.CONTAINER_STATUS_PENDING)
    try:
        with client.with_options(timeout=timeout).containers.watch_runs(
            namespace=asked.namespace, name=asked.name
        ) as watch:
            for change in watch:
                if change.resource.name != name:
                    continue
                last = change.resource
                if change.kind is ChangeKind.DELETED:
                    raise WaitError(f"{name} was removed during the wait", asked)
                if last.status == pb.CONTAINER_STATUS_SUCCEEDED:
                    return last
                if last.status == pb.CONTAINER_STATUS_FAILED:
                    why = " ".join(filter(None, (last.reason, last.message)))
                    raise WaitError(f"{name}: {why}", asked)
    except DeadlineExceededError:
        detail = " ".join(filter(None, (last.reason, last.message)))
        words = f"{name} has not succeeded after {timeout:g} s"
        raise WaitError(f"{words}: {detail}" if detail else words, asked) from None
    raise WaitError(f"{name}: the watch was closed", asked)


def judge_namespace(asked: Namespace, seen: Namespace) -> Verdict:
    """Returns whether a namespace is on its cluster as the call that returned `asked` has requested."""
    follows = not seen.reconciling and seen.observed_generation >= asked.generation
    refusal = _condition(seen, "Applied", FALSE)
    if refusal is not None and (follows or refusal != _condition(asked, "Applied", FALSE)):
        return Verdict(WaitOutcome.FAILED, f"{refusal.reason}: {refusal.message}")
    return Verdict(WaitOutcome.ARRIVED if follows and refusal is None else WaitOutcome.WAITING)


def wait_for_namespace(
    client: Nouns[BlockingTransport], asked: Namespace, *, gone: bool, timeout: float
) -> Namespace:
    """Watches until a namespace is on its cluster, or `gone` from it; returns its last state.

    `asked` is the namespace that a mutation returned. Raises WaitError if the cluster refuses it, if it is deleted
    while it should exist, or after `timeout` seconds.
    """
    last, present = asked, False
    try:
        with client.with_options(timeout=timeout).namespaces.watch(name=asked.name) as watch:
            for change in watch:
                namespace = change.resource
                if change.kind is ChangeKind.RESTARTED:
                    present = False
                elif change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED) and namespace.uid == asked.uid:
                    present, last = True, namespace
                    verdict = Verdict(WaitOutcome.WAITING) if gone else judge_namespace(asked, namespace)
                    if verdict.outcome is WaitOutcome.ARRIVED:
                        return namespace
                    if verdict.outcome is WaitOutcome.FAILED:
                        raise WaitError(f"{asked.name}: {verdict.why}", namespace)
                elif (change.kind is ChangeKind.SYNCED and not present) or (
                    change.kind is ChangeKind.DELETED and namespace.uid == asked.uid
                ):
                    if gone:
                        return last
                    raise WaitError(f"{asked.name} was deleted during the wait", last)
    except DeadlineExceededError:
        detail = ": ".join(filter(None, (last.reason, last.message)))
        what = "is not deleted" if gone else "is not on its cluster"
        raise WaitError(
            f"{asked.name} {what} after {timeout:g} s{': ' + detail if detail else ''}", last
        ) from None
    raise WaitError(f"{asked.name}: the watch was closed", last)


def wait_until_deregistered(client: Nouns[BlockingTransport], asked: Cluster, *, timeout: float) -> Cluster:
    """Waits until a cluster is deregistered; returns its last state.

    The server deregisters the cluster when the last of its namespaces is deleted.
    Clusters cannot be watched, so it polls. Raises WaitError after `timeout` seconds.
    """
    last, pause, end = asked, _FIRST_LOOK_SECONDS, monotonic() + timeout
    while True:
        try:
            seen = client.namespaces.get_cluster(name=asked.name)
        except NotFoundError:
            return last
        if seen.uid != asked.uid:
            return last
        last = seen
        if monotonic() + pause >= end:
            why = ": ".join(filter(None, (last.reason, last.message)))
            raise WaitError(
                f"{asked.name} is not deregistered after {timeout:g} s{f': {why}' if why else ''}", last
            )
        sleep(pause)
        pause = min(_MOST_LOOK_SECONDS, 2 * pause)


def _gone(last: pb.Container, goal: Goal) -> pb.Container:
    if goal is Goal.DELETED:
        return last
    raise WaitError(f"{last.name} was deleted during the wait", last)


def _too_late(last: pb.Container, goal: Goal, timeout: float, patience: Patience) -> str:
    refusal = _condition(last, "Applied", FALSE)
    detail = " ".join(filter(None, (last.reason, refusal.message if refusal else last.message)))
    missing = f"is not {goal.value}"
    if goal is Goal.RUNNING and last.status == pb.CONTAINER_STATUS_RUNNING:
        rolled_out = _condition(last, "RolledOut", FALSE) is None
        stays = f"has not run for {patience.stable_for:g} s without a restart"
        missing = stays if rolled_out else "has not been rolled out"
    return f"{last.name} {missing} after {timeout:g} s{': ' + detail if detail else ''}"
