"""Whether the desired state has been rolled out: the condition `RolledOut`, from the workload and its newest pods.

The status of a container says whether it serves, and old pods serve through a rollout that fails. So this is shown
apart, by the rule of `kubectl rollout status`: the workload's controller has seen its newest generation, all
replicas wanted are of the newest template and available, and no older ones are left. Surplus pods of the newest
template do not matter, nor do pods that are ending.

The condition is False while that is not so. Its reason: `ProgressDeadlineExceeded` where the cluster has given up,
else the cluster's where it makes no pods, else that of the newest pods (ImagePullBackOff, Unschedulable ...), else
`RolloutHeld`, `RolloutPaused` (by others) or `RollingOut`.

Two write it: the worker from the answer to its apply, in the write that says that a generation was dealt with, and
the observer from its watches, which lag behind. An older view must not call a generation rolled out that it has not
seen, so the condition remembers the state of the workload that it was made from, and only one as new replaces it.
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
    """Returns the condition; None where nothing is rolled out: the container shall not run, or has runs."""
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
    """Returns the condition by the answer to an apply. If the observer has seen an equally new state, it knows
    more.
    """
    before = next((c for c in container.observed.conditions if c.type == ROLLED_OUT), None)
    if before is not None and before.made_from == _state(workload) and container.desired_state == "running":
        return before
    return observe_rollout(container, workload)


def is_outrun(container: Container, workload: WorkloadObject) -> bool:
    """Returns whether a newer state of the workload is known than the one that is given."""
    before = next((c for c in container.observed.conditions if c.type == ROLLED_OUT), None)
    return before is not None and _is_newer(before.made_from, workload)


def forget_state(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Returns the conditions without the state that they were made from, so that the next observation replaces them.

    For a cluster that was put back to an older state: its generations begin lower again.
    """
    return tuple(msgspec.structs.replace(each, made_from="") for each in conditions)


def reason_of(
    condition: Condition, workload: WorkloadObject, pods: Iterable[PodObservation], newest: Newest | None
) -> tuple[str, str]:
    """Returns reason and message of a container that serves; empty once all is rolled out.

    The newest pods' messages help a caller sooner than the cluster's having given up, so that comes second.
    """
    pods = tuple(pods)
    if condition.status == "True" or (
        # The counters follow the pods within moments; that is nothing to be shown at each start.
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
    """Returns the pod that best explains why not all are ready: with a reason other than "in preparation" if any."""
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
    # Ours of the pods may be ahead of the counters or behind; ended is what both say.
    names = frozenset() if newest is None else newest.older
    older = max(
        state.replicas - state.updated_replicas, sum(pod.living and pod.revision in names for pod in pods)
    )
    # Pods that its own settings keep are no rest of a rollout.
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
    """Returns why a paused workload keeps its rollout back.

    Others paused it only if it stays so after our apply. Until the apply of a resumed container was seen, and where the
    cluster refused it, `spec.paused` is the one that we set ourselves.
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
    """Returns why the newest pods are not ready, where they say."""
    if newest is None:
        return None
    mine = [pod for pod in pods if pod.revision == newest.name and not pod.deleting]
    found = witness(pod for pod in mine if pod.living) or witness(pod for pod in mine if pod.failed)
    return (found.reason, found.message) if found is not None and says_why(found) else None


def says_why(pod: PodObservation) -> bool:
    """Returns whether its reason is more than a station on the ordinary way to a pod that is ready."""
    return pod.reason not in ORDINARY and pod.reason != "ContainersNotReady"


def _is_newer(made_from: str, workload: WorkloadObject) -> bool:
    """Returns whether the state is a later one of the same workload."""
    uid, _, generation = made_from.rpartition("/")
    return uid == workload.metadata.uid and int(generation) > workload.metadata.generation


def _state(workload: WorkloadObject) -> str:
    return f"{workload.metadata.uid}/{workload.metadata.generation}"


def _find(conditions: Iterable[ObjectCondition], type_: str, status: str) -> ObjectCondition | None:
    return next((c for c in conditions if c.type == type_ and c.status == status), None)
