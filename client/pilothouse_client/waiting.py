"""Waits until a cluster has done what was asked for a container or a namespace.

Mutations answer before the cluster has followed, so waiting means watching. What decides is `judge`: a
container has arrived when the generation asked for is applied, its status is the wanted one and, where it shall
run, its rollout has ended: old pods may serve long after a change that will never run. It has failed when the
cluster refuses it, its pods fail or the cluster has given its rollout up.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1.namespace_pb2 import Cluster, Namespace
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.client import Nouns
from pilothouse_client.errors import DeadlineExceededError, NotFoundError
from pilothouse_client.streams import ChangeKind
from pilothouse_client.transport import BlockingTransport


class Goal(enum.Enum):
    """What to wait for. `APPLIED` asks only that the cluster has taken over what is wanted."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    APPLIED = "applied"
    DELETED = "deleted"


class WaitError(Exception):
    """The resource did not get there. `container` is the last known state of a container."""

    def __init__(self, message: str, last: pb.Container | Namespace | Cluster) -> None:
        super().__init__(message)
        self.container = last if isinstance(last, pb.Container) else None


class Outcome(enum.Enum):
    """What `judge` says."""

    WAITING = "waiting"
    ARRIVED = "arrived"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and, for a failure, why."""

    outcome: Outcome
    why: str = ""


_STATUS_OF_GOAL = {
    Goal.STOPPED: pb.CONTAINER_STATUS_STOPPED,
    Goal.PAUSED: pb.CONTAINER_STATUS_PAUSED,
}
# Reasons of a container that shall not run, while pods are left.
_PODS_LEFT = frozenset({"ScalingDown", "Terminating"})
FALSE = resource_pb2.CONDITION_STATUS_FALSE
_FIRST_LOOK_SECONDS, _MOST_LOOK_SECONDS = 0.1, 2.0
_BROKEN = (pb.CONTAINER_STATUS_FAILED, pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF)


def judge(asked: pb.Container, seen: pb.Container, goal: Goal) -> Verdict:
    """Returns whether `seen` is where the call that returned `asked` wants it to be."""
    follows = not seen.reconciling and seen.observed_generation >= asked.generation
    refusal = _condition(seen, "Applied", FALSE)
    # A refusal that was there when the call was answered is of an earlier state, until that call has been dealt with.
    if refusal is not None and (follows or refusal != _condition(asked, "Applied", FALSE)):
        return Verdict(Outcome.FAILED, f"the cluster refuses it: {refusal.message or refusal.reason}")
    if not follows or goal is Goal.DELETED:
        return Verdict(Outcome.WAITING)
    if goal is Goal.APPLIED:
        return Verdict(Outcome.ARRIVED)
    if goal is not Goal.RUNNING:
        ended = seen.status == _STATUS_OF_GOAL[goal] and seen.reason not in _PODS_LEFT
        return Verdict(Outcome.ARRIVED if ended else Outcome.WAITING)
    if why := failed_for_good(seen):
        return Verdict(Outcome.FAILED, why)
    return Verdict(Outcome.ARRIVED if runs_as_wanted(seen) else Outcome.WAITING)


def runs_as_wanted(container: pb.Container) -> bool:
    """Whether it runs and nothing of its rollout is left to do; one without replicas has nothing to run.

    Only of a container whose generation was dealt with. A rollout that is held has come as far as it shall.
    """
    if container.status == pb.CONTAINER_STATUS_STOPPED:
        return _wants_no_pods(container)
    pending = _condition(container, "RolledOut", FALSE)
    return container.status == pb.CONTAINER_STATUS_RUNNING and (
        pending is None or pending.reason == "RolloutHeld"
    )


def failed_for_good(container: pb.Container) -> str:
    """Why it will not come to run by waiting; empty where it may. Only of one whose generation was dealt with."""
    pending = _condition(container, "RolledOut", FALSE)
    why = " ".join(filter(None, (container.reason, container.message)))
    if given_up(container):
        return f"the cluster has given its rollout up: {why}"
    # Pods of before may still fail while those that take their place are on their way.
    passing = pending is not None and pending.reason == "RollingOut"
    return (why or "its pods fail") if container.status in _BROKEN and not passing else ""


def given_up(container: pb.Container) -> bool:
    """Whether no step of its rollout came in the time that the cluster allows for one."""
    pending = _condition(container, "RolledOut", FALSE)
    return pending is not None and pending.reason == "ProgressDeadlineExceeded"


def refused(container: pb.Container) -> bool:
    """Returns whether the cluster refuses what is wanted."""
    return _condition(container, "Applied", FALSE) is not None


def starts_from_nothing(container: pb.Container) -> bool:
    """Whether it counts as stopped only because it had no replicas: it runs as soon as it has some."""
    stopped = container.status == pb.CONTAINER_STATUS_STOPPED and container.reason == "NoReplicas"
    return stopped and not _wants_no_pods(container)


def _wants_no_pods(container: pb.Container) -> bool:
    return container.HasField("replicas") and container.replicas == 0


def _condition(
    container: pb.Container | Namespace, type_: str, status: resource_pb2.ConditionStatus.ValueType
) -> resource_pb2.Condition | None:
    return next((c for c in container.conditions if c.type == type_ and c.status == status), None)


def wait_for(
    client: Nouns[BlockingTransport],
    asked: pb.Container,
    goal: Goal,
    *,
    timeout: float,
    progress: Callable[[pb.Container], Any] = lambda _container: None,
) -> pb.Container:
    """Watches until the container that a mutation returned (`asked`) has reached the goal; returns its last state.

    `progress` gets each state on the way. Raises WaitError if it fails, is deleted, or `timeout` seconds
    pass.
    """
    last = asked
    patient = client.with_options(timeout=timeout)
    try:
        with patient.containers.watch(namespace=asked.namespace, name=asked.name) as watch:
            present = False
            for change in watch:
                container = change.resource
                if change.kind is ChangeKind.RESTARTED:
                    present = False
                elif change.kind is ChangeKind.SYNCED and not present:
                    return _gone(last, goal)
                elif change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED) and container.uid == asked.uid:
                    present, last = True, container
                    progress(container)
                    verdict = judge(asked, container, goal)
                    if verdict.outcome is Outcome.ARRIVED:
                        return container
                    if verdict.outcome is Outcome.FAILED:
                        raise WaitError(f"{asked.name}: {verdict.why}", container)
                elif change.kind is ChangeKind.DELETED and container.uid == asked.uid:
                    return _gone(last, goal)
    except DeadlineExceededError:
        raise WaitError(_too_late(last, goal, timeout), last) from None
    raise WaitError(f"{asked.name}: the watch was closed", last)


def judge_namespace(asked: Namespace, seen: Namespace) -> Verdict:
    """Returns whether a namespace is on its cluster as the call that returned `asked` wants it."""
    follows = not seen.reconciling and seen.observed_generation >= asked.generation
    refusal = _condition(seen, "Applied", FALSE)
    if refusal is not None and (follows or refusal != _condition(asked, "Applied", FALSE)):
        return Verdict(Outcome.FAILED, f"{refusal.reason}: {refusal.message}")
    return Verdict(Outcome.ARRIVED if follows and refusal is None else Outcome.WAITING)


def wait_for_namespace(
    client: Nouns[BlockingTransport], asked: Namespace, *, gone: bool, timeout: float
) -> Namespace:
    """Watches until the namespace that a mutation returned is on its cluster, or `gone` from there; returns its last
    state.

    Raises WaitError if the cluster refuses it, it is deleted meanwhile, or `timeout` seconds pass.
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
                    verdict = Verdict(Outcome.WAITING) if gone else judge_namespace(asked, namespace)
                    if verdict.outcome is Outcome.ARRIVED:
                        return namespace
                    if verdict.outcome is Outcome.FAILED:
                        raise WaitError(f"{asked.name}: {verdict.why}", namespace)
                elif (change.kind is ChangeKind.SYNCED and not present) or (
                    change.kind is ChangeKind.DELETED and namespace.uid == asked.uid
                ):
                    if gone:
                        return last
                    raise WaitError(f"{asked.name} was deleted meanwhile", last)
    except DeadlineExceededError:
        detail = ": ".join(filter(None, (last.reason, last.message)))
        what = "is not gone" if gone else "is not on its cluster"
        raise WaitError(
            f"{asked.name} {what} after {timeout:g} s{': ' + detail if detail else ''}", last
        ) from None
    raise WaitError(f"{asked.name}: the watch was closed", last)


def wait_until_deregistered(client: Nouns[BlockingTransport], asked: Cluster, *, timeout: float) -> Cluster:
    """Returns the last state of a cluster once it is forgotten, as it is when the last of its namespaces has gone.

    Clusters cannot be watched, so it is looked for again and again. Raises WaitError after `timeout` seconds.
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
    raise WaitError(f"{last.name} was deleted meanwhile", last)


def _too_late(last: pb.Container, goal: Goal, timeout: float) -> str:
    refusal = _condition(last, "Applied", FALSE)
    detail = " ".join(filter(None, (last.reason, refusal.message if refusal else last.message)))
    serves = goal is Goal.RUNNING and last.status == pb.CONTAINER_STATUS_RUNNING
    missing = "has not been rolled out" if serves else f"is not {goal.value}"
    return f"{last.name} {missing} after {timeout:g} s{': ' + detail if detail else ''}"
