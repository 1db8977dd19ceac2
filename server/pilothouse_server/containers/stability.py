"""Whether the newest pods run without a restart: the condition `Stable`.

The restarts of all living pods cannot show this: their sum falls when old pods are deleted, so a release that restarts
repeatedly looks as if it ran well. This condition is about the pods of the newest template, and about those that the
partition of a StatefulSet keeps at a former template:

* FALSE/`Restarted`: a program of these pods has ended, or restarted within the last `SETTLE_SECONDS`. The message has
  the exit code, and the program's termination message. The condition stays until all desired pods are ready.
* FALSE/`Waiting`: fewer pods are ready than are desired.
* TRUE: all desired pods are ready. `last_transition_time` is the time since when they have been ready without a
  restart. It also changes if an observation finds that a pod has restarted, or was not ready, since the previous
  observation: for example, after a time in which no server watched the cluster.

The condition is absent if no pod is desired.

Like `RolledOut` (see `rollout`), it stores the state that it was made from. If the apply changed the workload, the
worker resets the condition in the write that records a generation as observed. The observer computes the condition from
states that are at least as new, once the workload's controller has observed them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.rollout import NOT_FOLLOWED_MESSAGE
from pilothouse_server.containers.workloads import Newest, workload_type
from pilothouse_server.kubernetes.conditions import MESSAGE_LIMIT
from pilothouse_server.kubernetes.errors import shown
from pilothouse_server.kubernetes.objects import ContainerStatus, Pod, WorkloadObject, storable
from pilothouse_server.kubernetes.pod_observation import revision_of
from pilothouse_server.kubernetes.program_observation import CRASH_LOOP, native_sidecars
from pilothouse_server.values.resources import Condition

STABLE = "Stable"
WAITING = "Waiting"
RESTARTED = "Restarted"
# How long a program counts as restarted, here and for the status (`observation`).
SETTLE_SECONDS = 10.0


class Stability(msgspec.Struct, frozen=True, gc=False):
    """The condition, and after how many seconds it changes without a change on the cluster; None if it does not."""

    condition: Condition
    recheck_seconds: float | None = None


class _Origin(msgspec.Struct, frozen=True, gc=False):
    """The state that a condition was made from.

    It has a workload's uid and generation, the newest revision, and when the last of its pods became ready, in seconds
    by the cluster's clock; 0 if none did.
    """

    workload: str = ""
    generation: int = 0
    revision: str = ""
    ready_since: int = 0

    @classmethod
    def of(cls, condition: Condition | None) -> _Origin:
        """Returns the state that a condition was made from; an empty one if the condition stores none."""
        match condition.made_from.split("/") if condition is not None else ():
            case [workload, generation, revision, ready_since]:
                return cls(workload, int(generation), revision, int(ready_since))
            case _:
                return cls()

    def __str__(self) -> str:
        return f"{self.workload}/{self.generation}/{self.revision}/{self.ready_since}"

    def is_newer_than(self, workload: WorkloadObject) -> bool:
        return self.workload == workload.metadata.uid and self.generation > workload.metadata.generation


def observe_stability(
    container: Container,
    workload: WorkloadObject | None,
    newest: Newest | None,
    pods: Iterable[Pod],
    needed: int,
    *,
    now: datetime,
    cluster_now: datetime,
) -> Stability | None:
    """Returns the condition from the pods; None if no running pod is desired. `needed`: how many must be ready."""
    if (
        container.desired_state != "running"
        or not workload_type(container).rolls_out
        or (workload is not None and needed == 0)
    ):
        return None
    before = _before(container)
    if workload is None:
        made_from = before.made_from if before is not None else ""
        return Stability(_waiting("it is not on the cluster yet", made_from, before, now))
    origin = _Origin.of(before)
    if newest is None or not newest.is_present or not workload.followed or origin.is_newer_than(workload):
        # The newest observed pods may still be of the former desired state.
        return Stability(before or _waiting(NOT_FOLLOWED_MESSAGE, str(_Origin()), before, now))
    mine = sorted(
        (pod for pod in pods if _is_living_of(pod, newest, workload)), key=lambda pod: pod.metadata.name
    )
    ready_since = origin.ready_since if origin.revision == newest.name else 0
    seen = _Origin(workload.metadata.uid, workload.metadata.generation, newest.name, ready_since)
    if (restarted := _restarted(mine, cluster_now)) is not None:
        message, seconds = restarted
        condition = Condition(STABLE, "False", RESTARTED, message[:MESSAGE_LIMIT], made_from=str(seen))
        return Stability(_with_time(condition, before, now), seconds)
    ready = [pod for pod in mine if _is_ready(pod)]
    if len(ready) >= needed:
        return Stability(_all_ready(ready, seen, before, now))
    if before is not None and before.reason == RESTARTED and origin.revision == newest.name:
        return Stability(msgspec.structs.replace(before, made_from=str(seen)))
    return Stability(_waiting(f"{len(ready)} of {needed} pods are ready", str(seen), before, now))


def applied_stability(container: Container, workload: WorkloadObject, now: datetime) -> Condition | None:
    """Returns the condition after an apply; None if the present condition stays.

    The condition is reset if the apply changed the workload and no later state was observed, because it then describes
    the pods before the apply.
    """
    before = _before(container)
    if before is None or container.desired_state != "running" or workload.replicas == 0:
        return None
    origin = _Origin.of(before)
    if origin.workload == workload.metadata.uid and origin.generation >= workload.metadata.generation:
        return None
    reset = _Origin(workload.metadata.uid, workload.metadata.generation)
    return _waiting(NOT_FOLLOWED_MESSAGE, str(reset), before, now)


def _all_ready(ready: list[Pod], seen: _Origin, before: Condition | None, now: datetime) -> Condition:
    ready_since = max(map(_ready_since, ready))
    stays = before is not None and before.status == "True" and ready_since <= seen.ready_since
    if not stays:
        seen = msgspec.structs.replace(seen, ready_since=ready_since)
    condition = Condition(STABLE, "True", STABLE, made_from=str(seen))
    return _with_time(condition, before if stays else None, now)


def _waiting(message: str, made_from: str, before: Condition | None, now: datetime) -> Condition:
    return _with_time(Condition(STABLE, "False", WAITING, message, made_from=made_from), before, now)


def _with_time(condition: Condition, before: Condition | None, now: datetime) -> Condition:
    stays = before is not None and before.status == condition.status
    since = before.last_transition_time if before is not None and stays else now
    return msgspec.structs.replace(condition, last_transition_time=since)


def _before(container: Container) -> Condition | None:
    return next((each for each in container.observed.conditions if each.type == STABLE), None)


def _is_living_of(pod: Pod, newest: Newest, workload: WorkloadObject) -> bool:
    living = pod.metadata.deletion_timestamp is None and pod.status.phase not in ("Failed", "Succeeded")
    return living and (revision_of(pod) == newest.name or workload.keeps_former(pod.metadata.name))


def _is_ready(pod: Pod) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions)


def _ready_since(pod: Pod) -> int:
    """Returns since when a pod has been ready without a restart.

    In seconds by the cluster's clock; 1 if the pod's status has no such time.
    """
    times = [each.last_transition_time for each in pod.status.conditions if each.type == "Ready"]
    times += [
        status.state.running.started_at
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)
        if status.restart_count > 0 and status.state.running is not None
    ]
    return max((int(time.timestamp()) for each in times if (time := storable(each)) is not None), default=1)


def _restarted(pods: Iterable[Pod], cluster_now: datetime) -> tuple[str, float | None] | None:
    """Returns the message about the first program that restarted, and for how many seconds that still counts."""
    for pod in pods:
        natives = native_sidecars(pod)
        statuses = [(each, each.name not in natives) for each in pod.status.init_container_statuses]
        statuses += [(each, False) for each in pod.status.container_statuses]
        for status, init in statuses:
            if (left := _restart_counts(status, cluster_now, init=init)) is not None:
                return _end(pod, status), left or None
    return None


def _restart_counts(status: ContainerStatus, cluster_now: datetime, *, init: bool) -> float | None:
    """Returns for how many seconds a restart still counts.

    0: until something changes. None: there is no restart. `init`: the program is an init container that must end, and
    no native sidecar.
    """
    state, last = status.state, status.last_state.terminated
    if state.terminated is not None:
        # An init container that ended with 0 has not failed.
        return None if init and state.terminated.exit_code == 0 else 0.0
    if state.waiting is not None:
        return (
            0.0
            if status.restart_count > 0 or last is not None or state.waiting.reason == CRASH_LOOP
            else None
        )
    if state.running is None or status.restart_count == 0:
        return None
    started = storable(state.running.started_at)
    left = SETTLE_SECONDS - (cluster_now - started).total_seconds() if started is not None else 0.0
    # A start in the future comes from a clock that is ahead; the wait is never longer than the period.
    return min(left, SETTLE_SECONDS) if left > 0 else None


def _end(pod: Pod, status: ContainerStatus) -> str:
    ended = status.state.terminated or status.last_state.terminated
    where = f"program {status.name} of pod {pod.metadata.name}"
    if ended is None:
        return f"{where} has restarted"
    words = f"{where} ended: {ended.reason or 'Terminated'}, exit code {ended.exit_code}"
    return f"{words}: {shown(ended.message).strip()}" if ended.message.strip() else words
