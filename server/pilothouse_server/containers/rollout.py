"""The condition `RolledOut`: whether the desired state has been rolled out.

The condition follows from the workload and its newest pods. The status of a container shows whether it serves, and old
pods continue to serve during a rollout that fails. So the rollout has a condition of its own. The condition follows the
rule of `kubectl rollout status`: the workload's controller has observed the newest generation, all desired replicas are
of the newest template and available, and no older replicas are left. Surplus pods of the newest template do not matter,
nor do pods that are ending.

Otherwise the condition is False. Its reason is `RolloutHeld` or `RolloutPaused` (by others) while the rollout is held;
else `ProgressDeadlineExceeded` if the cluster has given up; else the cluster's reason if it cannot create pods; else
that of the newest pods (ImagePullBackOff, Unschedulable ...); else `RollingOut`.

Two components write the condition: the worker from the response to its apply, in the write that records a generation as
observed, and the observer from its watches, which lag behind. The observer must not report a generation as rolled out
that it has not seen. So the condition stores the state of the workload that it was made from, and only a condition from
a state that is at least as new replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workloads import Newest, workload_type
from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.objects import ObjectCondition, WorkloadObject
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.program_observation import ORDINARY
from pilothouse_server.values.resources import Condition

ROLLED_OUT = "RolledOut"
ROLLING_OUT = "RollingOut"
ROLLOUT_HELD = "RolloutHeld"
DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
HELD_MESSAGE = "changes are not rolled out until it is resumed"
ROLLOUT_PAUSED = "RolloutPaused"
NOT_FOLLOWED_MESSAGE = "the cluster has yet to follow"


def observe_rollout(
    container: Container,
    workload: WorkloadObject | None,
    newest: Newest | None = None,
    pods: Iterable[PodObservation] = (),
) -> Condition | None:
    """Returns the condition; None if nothing is rolled out: the container is stopped or paused, or has runs."""
    if container.desired_state != "running" or not workload_type(container).rolls_out:
        return None
    before = next((c for c in container.observed.conditions if c.type == ROLLED_OUT), None)
    if workload is None:
        made_from = before.made_from if before else ""
        return Condition(
            ROLLED_OUT, "False", ROLLING_OUT, "it is not on the cluster yet", made_from=made_from
        )
    if before is not None and _is_newer(before.made_from, workload):
        return before
    condition = _observed(container, workload, newest, tuple(pods))
    return msgspec.structs.replace(condition, made_from=_state(workload))


def applied_rollout(container: Container, workload: WorkloadObject) -> Condition | None:
    """Returns the condition from the response to an apply.

    If the observer has already seen this state of the workload, its condition stays, because it has more details.
    """
    before = next((c for c in container.observed.conditions if c.type == ROLLED_OUT), None)
    if before is not None and before.made_from == _state(workload) and container.desired_state == "running":
        return before
    return observe_rollout(container, workload)


def is_outrun(container: Container, workload: WorkloadObject) -> bool:
    """Returns whether the container's condition was made from a newer state of the workload than the given one."""
    before = next((c for c in container.observed.conditions if c.type == ROLLED_OUT), None)
    return before is not None and _is_newer(before.made_from, workload)


def forget_state(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Returns the conditions without the state that they were made from.

    The next observation then replaces them. This is for a cluster that was restored to an older state: its generations
    are lower than before.
    """
    return tuple(msgspec.structs.replace(each, made_from="") for each in conditions)


def reason_of(
    condition: Condition, workload: WorkloadObject, pods: Iterable[PodObservation], newest: Newest | None
) -> tuple[str, str]:
    """Returns reason and message of a serving container; empty once all is rolled out.

    The newest pods' messages help a caller more than `ProgressDeadlineExceeded`, so they come first.
    """
    pods = tuple(pods)
    if condition.status == "True" or (
        # The counters follow the pods within moments, so this difference is not reported at each start.
        condition.reason == ROLLING_OUT
        and condition.made_from == _state(workload)
        and workload.followed
        and newest is not None
        and all(pod.ready and pod.revision == newest.name for pod in pods if pod.living)
    ):
        return "", ""
    if condition.reason == DEADLINE_EXCEEDED and (why := _of_newest(pods, newest)):
        return why[0], f"{why[1]}; {DEADLINE_EXCEEDED}" if why[1] else DEADLINE_EXCEEDED
    return condition.reason, condition.message


def witness(pods: Iterable[PodObservation]) -> PodObservation | None:
    """Returns the pod that best explains why not all are ready: one that `says_why`, if there is any."""
    unready = [pod for pod in pods if not pod.ready]
    return min(unready, key=lambda pod: not says_why(pod), default=None)


def _observed(
    container: Container,
    workload: WorkloadObject,
    newest: Newest | None,
    pods: tuple[PodObservation, ...],
) -> Condition:
    state = workload.status
    wanted = workload.replicas if container.hold_rollout else workload.to_update
    if not workload.followed:
        # Counters and conditions still describe the former desired state.
        return _not_yet(ROLLING_OUT, NOT_FOLLOWED_MESSAGE)
    # The observed pods may be ahead of the counters or behind them; the rollout has ended only if both show it.
    names = frozenset() if newest is None else newest.older
    older = max(
        state.replicas - state.updated_replicas, sum(pod.living and pod.revision in names for pod in pods)
    )
    # Pods that the workload's own settings keep at an older template do not count.
    older -= workload.replicas - wanted
    if state.updated_replicas >= wanted and older <= 0 and state.available_replicas >= state.updated_replicas:
        return Condition(ROLLED_OUT, "True", ROLLED_OUT)
    if workload.holds_rollout and state.replicas > state.updated_replicas:
        return _held(container)
    why = _of_newest(pods, newest if newest is not None and newest.is_present else None)
    if late := _find(state.conditions, "Progressing", "False"):
        message = f"{late.message} {why[0]}: {why[1]}" if why else late.message
        return _not_yet(late.reason, message.strip())
    if refused := _find(state.conditions, "ReplicaFailure", "True"):
        return _not_yet(refused.reason, refused.message)
    if why:
        return _not_yet(*why)
    if state.updated_replicas >= wanted and older <= 0:
        return _not_yet(ROLLING_OUT, f"{state.available_replicas} of {wanted} replicas are available")
    message = f"{min(state.updated_replicas, wanted)} of {wanted} replicas are of the newest template"
    return _not_yet(ROLLING_OUT, f"{message}, {older} older ones are left" if older > 0 else message)


def _held(container: Container) -> Condition:
    """Returns the condition of a paused workload, with the reason of the pause.

    Others have paused the workload only if it is still paused after the platform's apply. Until the apply of a resumed
    container is observed, or if the cluster refused the apply, `spec.paused` is still the platform's own value.
    """
    if container.hold_rollout:
        return _not_yet(ROLLOUT_HELD, HELD_MESSAGE)
    refused = any(each.type == APPLIED and each.status != "True" for each in container.observed.conditions)
    if refused or container.observed_generation < container.generation:
        return _not_yet(ROLLING_OUT, NOT_FOLLOWED_MESSAGE)
    return _not_yet(ROLLOUT_PAUSED, f"others have paused the {workload_type(container).kind} on the cluster")


def _not_yet(reason: str, message: str) -> Condition:
    return Condition(ROLLED_OUT, "False", reason, message)


def _of_newest(pods: Iterable[PodObservation], newest: Newest | None) -> tuple[str, str] | None:
    """Returns the reason and the message of the newest pods that are not ready; None if they have none."""
    if newest is None:
        return None
    mine = [pod for pod in pods if pod.revision == newest.name and not pod.deleting]
    found = witness(pod for pod in mine if pod.living) or witness(pod for pod in mine if pod.failed)
    return (found.reason, found.message) if found is not None and says_why(found) else None


def says_why(pod: PodObservation) -> bool:
    """Returns whether the pod's reason is more than an ordinary step on the way to a ready pod."""
    return pod.reason not in ORDINARY and pod.reason != "ContainersNotReady"


def _is_newer(made_from: str, workload: WorkloadObject) -> bool:
    """Returns whether `made_from` is a later state of the same workload."""
    uid, _, generation = made_from.rpartition("/")
    return uid == workload.metadata.uid and int(generation) > workload.metadata.generation


def _state(workload: WorkloadObject) -> str:
    return f"{workload.metadata.uid}/{workload.metadata.generation}"


def _find(conditions: Iterable[ObjectCondition], type_: str, status: str) -> ObjectCondition | None:
    return next((c for c in conditions if c.type == type_ and c.status == status), None)
