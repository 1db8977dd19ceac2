"""Waits until a cluster has done what was asked for a container.

Mutations answer before the cluster has followed, so waiting means watching. What decides is `judge`: a
container has arrived when the generation asked for is applied and its status is the wanted one; it has failed
when the cluster refuses it or its pods fail.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.client import Nouns
from pilothouse_client.errors import DeadlineExceededError
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
    """The container did not get there. `container` is its last known state."""

    def __init__(self, message: str, container: pb.Container) -> None:
        super().__init__(message)
        self.container = container


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
    Goal.RUNNING: pb.CONTAINER_STATUS_RUNNING,
    Goal.STOPPED: pb.CONTAINER_STATUS_STOPPED,
    Goal.PAUSED: pb.CONTAINER_STATUS_PAUSED,
}
_BROKEN = (pb.CONTAINER_STATUS_FAILED, pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF)


def judge(asked: pb.Container, seen: pb.Container, goal: Goal) -> Verdict:
    """Whether `seen` is where the call that answered `asked` wanted it to be."""
    refusal = _refusal(seen)
    # A refusal that was there when the call was answered is of an earlier state, until it is said anew.
    if refusal is not None and refusal != _refusal(asked):
        return Verdict(Outcome.FAILED, f"the cluster refuses it: {refusal.message or refusal.reason}")
    if seen.reconciling or seen.observed_generation < asked.generation or goal is Goal.DELETED:
        return Verdict(Outcome.WAITING)
    if goal is Goal.APPLIED or seen.status == _STATUS_OF_GOAL[goal]:
        return Verdict(Outcome.ARRIVED)
    if goal is Goal.RUNNING and seen.status in _BROKEN:
        return Verdict(Outcome.FAILED, " ".join(filter(None, (seen.reason, seen.message))) or "its pods fail")
    return Verdict(Outcome.WAITING)


def _refusal(container: pb.Container) -> resource_pb2.Condition | None:
    for condition in container.conditions:
        if condition.type == "Applied" and condition.status == resource_pb2.CONDITION_STATUS_FALSE:
            return condition
    return None


def wait_for(
    client: Nouns[BlockingTransport],
    asked: pb.Container,
    goal: Goal,
    *,
    timeout: float,
    progress: Callable[[pb.Container], Any] = lambda _container: None,
) -> pb.Container:
    """Watches until the container that a mutation answered (`asked`) has reached the goal; answers its last state.

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


def _gone(last: pb.Container, goal: Goal) -> pb.Container:
    if goal is Goal.DELETED:
        return last
    raise WaitError(f"{last.name} was deleted meanwhile", last)


def _too_late(last: pb.Container, goal: Goal, timeout: float) -> str:
    refusal = _refusal(last)
    detail = " ".join(filter(None, (last.reason, refusal.message if refusal else last.message)))
    return f"{last.name} is not {goal.value} after {timeout:g} s{': ' + detail if detail else ''}"
