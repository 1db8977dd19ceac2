"""Whether the newest pods run without a restart: the condition `Stable`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pilothouse_server.containers.observation import observe
from pilothouse_server.containers.rollout import forget_state
from pilothouse_server.containers.stability import SETTLE_SECONDS, applied_stability
from pilothouse_server.containers.workloads import REVISION
from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
    Deployment,
    ObjectCondition,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodContainer,
    PodSpec,
    PodState,
    ReplicaSet,
    Running,
    Terminated,
    Waiting,
)
from pilothouse_server.values.resources import Condition
from tests.kubernetes import recorded
from tests.kubernetes.containers import container
from tests.kubernetes.test_rollout import deployment, with_metadata

NOW = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
CRASHED = Terminated(exit_code=3, reason="Error", message="no database\n", finished_at=NOW)
SETS = [
    ReplicaSet(metadata=ObjectMeta(name=f"web-{number}", annotations={REVISION: str(number)}))
    for number in (1, 2)
]


def pod(
    name: str = "new",
    revision: int = 2,
    *,
    ready: bool = True,
    since: datetime = LONG_AGO,
    restarts: int = 0,
    began: datetime = LONG_AGO,
    state: ContainerState | None = None,
    init: ContainerState | None = None,
    **metadata: Any,
) -> Pod:
    """Returns a running pod, which is ready unless `ready` is False."""
    ended = ContainerState(terminated=CRASHED) if restarts else ContainerState()
    running = state or ContainerState(running=Running(began))
    return Pod(
        metadata=ObjectMeta(
            name=name,
            uid=name,
            owner_references=(OwnerReference("ReplicaSet", f"web-{revision}"),),
            **metadata,
        ),
        status=PodState(
            phase="Running",
            conditions=(ObjectCondition("Ready", "True" if ready else "False", last_transition_time=since),),
            init_container_statuses=() if init is None else (ContainerStatus("prepare", state=init),),
            container_statuses=(
                ContainerStatus("main", ready=ready, restart_count=restarts, state=running, last_state=ended),
            ),
        ),
    )


class View:
    """The successive states of one container, each based on the previous one."""

    def __init__(self, **row: Any) -> None:
        self.row = container(**{"generation": 2, "observed_generation": 2, **row})
        self.now = NOW
        self.recheck: float | None = None

    def look(self, *pods: Pod, seen: Deployment | None = None, later: float = 1.0) -> Condition | None:
        """Observes `later` seconds after the previous observation; returns the condition."""
        self.now += timedelta(seconds=later)
        seen = seen or deployment(updated=1)
        observation = observe(self.row, seen, SETS, pods, now=self.now)
        self.row = msgspec.structs.replace(self.row, observed=observation.observed)
        self.recheck = observation.recheck_seconds
        return self.condition

    def apply(self, seen: Deployment) -> Condition | None:
        """Writes the result of an apply as the worker does; returns the condition."""
        changed = applied_stability(self.row, seen, self.now)
        if changed is not None:
            kept = [each for each in self.row.observed.conditions if each.type != "Stable"]
            observed = msgspec.structs.replace(self.row.observed, conditions=(*kept, changed))
            self.row = msgspec.structs.replace(self.row, observed=observed)
        return self.condition

    @property
    def condition(self) -> Condition | None:
        return next((each for each in self.row.observed.conditions if each.type == "Stable"), None)


def words(condition: Condition | None) -> tuple[str, str]:
    assert condition is not None
    return condition.status, condition.reason


def test_stable_is_true_once_all_desired_pods_are_ready() -> None:
    view = View(replicas=2)
    two = deployment(2, updated=2)
    waiting = view.look(pod("a"), pod("b", ready=False), seen=two)
    assert waiting is not None
    assert (words(waiting), waiting.message) == (("False", "Waiting"), "1 of 2 pods are ready")
    first = view.look(pod("a"), pod("b", since=NOW), seen=two)
    assert words(first) == ("True", "Stable")
    assert first is not None
    assert first.last_transition_time == view.now
    assert view.look(pod("a"), pod("b", since=NOW), seen=two, later=60) == first


def test_a_restart_is_not_stable_until_it_settles_and_resets_the_time() -> None:
    view = View()
    view.look(pod())
    crashed = view.look(pod(ready=False, state=ContainerState(terminated=CRASHED)))
    assert crashed is not None
    assert words(crashed) == ("False", "Restarted")
    assert crashed.message == "program main of pod new ended: Error, exit code 3: no database"
    began = view.now
    again = view.look(pod(restarts=1, since=began, began=began))
    assert words(again) == ("False", "Restarted")
    assert view.recheck is not None
    assert 0 < view.recheck <= SETTLE_SECONDS
    settled = view.look(pod(restarts=1, since=began, began=began), later=SETTLE_SECONDS)
    assert settled is not None
    assert words(settled) == ("True", "Stable")
    assert settled.last_transition_time == view.now


def test_an_unobserved_restart_resets_the_time() -> None:
    """The server was away, or the program restarted between two observations."""
    view = View()
    first = view.look(pod())
    began = NOW + timedelta(seconds=30)
    later = view.look(pod(restarts=1, began=began), later=600)
    assert first is not None
    assert later is not None
    assert (words(first), words(later)) == (("True", "Stable"), ("True", "Stable"))
    assert later.last_transition_time == view.now
    # A period in which the pod was not ready has the same effect.
    unready = view.look(pod(restarts=1, began=began, since=began + timedelta(seconds=60)), later=600)
    assert unready is not None
    assert unready.last_transition_time == view.now


def test_restarts_in_the_past_do_not_count() -> None:
    """A scale-up of pods that restarted in the past waits only for the new pod."""
    view = View(replicas=2)
    assert words(view.look(pod("a", restarts=4), pod("b", ready=False), seen=deployment(2, updated=2))) == (
        "False",
        "Waiting",
    )
    assert words(view.look(pod("a", restarts=4), pod("b"), seen=deployment(2, updated=2))) == (
        "True",
        "Stable",
    )


def test_pods_of_older_replica_sets_and_terminating_pods_do_not_count() -> None:
    crashing: dict[str, Any] = {
        "ready": False,
        "restarts": 3,
        "state": ContainerState(waiting=Waiting("CrashLoopBackOff")),
    }
    view = View()
    assert words(view.look(pod("old", 1, **crashing), pod())) == ("True", "Stable")
    assert words(view.look(pod("ending", **crashing, deletion_timestamp=NOW), pod())) == ("True", "Stable")
    # The sum of restarts decreases when the old pods are deleted.
    assert words(view.look(pod("old", 1, restarts=9), pod(**crashing))) == ("False", "Restarted")
    assert words(view.look(pod(**crashing))) == ("False", "Restarted")


def test_the_reason_stays_restarted_until_all_pods_are_ready() -> None:
    view = View()
    view.look(pod(ready=False, state=ContainerState(terminated=CRASHED)))
    began = view.now
    slow = pod(ready=False, restarts=1, since=began, began=began)
    assert words(view.look(slow, later=5)) == ("False", "Restarted")
    assert words(view.look(slow, later=60)) == ("False", "Restarted")
    assert words(view.look(pod(restarts=1, since=view.now, began=began))) == ("True", "Stable")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ContainerState(terminated=Terminated(exit_code=1)), "Restarted"),
        (ContainerState(terminated=Terminated(exit_code=0)), "Waiting"),
        (ContainerState(running=Running(NOW)), "Waiting"),
    ],
    ids=["failed", "done", "runs"],
)
def test_a_failed_init_container_is_a_restart_but_a_completed_one_is_not(
    state: ContainerState, reason: str
) -> None:
    preparing = pod(ready=False, init=state, state=ContainerState(waiting=Waiting("PodInitializing")))
    assert words(View().look(preparing)) == ("False", reason)


@pytest.mark.parametrize("exit_code", [0, 5])
def test_a_native_sidecar_that_ends_is_a_restart_for_any_exit_code(exit_code: int) -> None:
    ended = Terminated(exit_code=exit_code, reason="Completed")
    crashed = pod(ready=False, init=ContainerState(terminated=ended))
    spec = PodSpec(init_containers=(PodContainer("prepare", "a:1", "Always"),))
    seen = View().look(msgspec.structs.replace(crashed, spec=spec))
    assert seen is not None
    assert words(seen) == ("False", "Restarted")
    assert seen.message == f"program prepare of pod new ended: Completed, exit code {exit_code}"


def test_observations_of_an_earlier_generation_do_not_count_later() -> None:
    view = View()
    assert words(view.look(pod())) == ("True", "Stable")
    applied = deployment(updated=0, generation=3, seen=2)
    # The observer sees the new state before its controller does: the pods are still those of the former
    # state.
    assert words(view.look(pod(), seen=applied)) == ("True", "Stable")
    assert words(view.apply(applied)) == ("False", "Waiting")
    # An even older view, and a view of the new state for which no replica set is known.
    assert words(view.look(pod())) == ("False", "Waiting")
    followed = with_metadata(deployment(updated=1, generation=3, seen=3), annotations={REVISION: "3"})
    assert words(view.look(pod(), seen=followed)) == ("False", "Waiting")


def test_an_apply_without_a_change_keeps_the_condition() -> None:
    view = View()
    first = view.look(pod())
    assert view.apply(deployment(updated=1)) == first
    # The observer was faster than the worker.
    newer = deployment(updated=1, generation=3, seen=3)
    seen = view.look(pod(), seen=newer)
    assert view.apply(newer) == seen
    assert seen is not None
    assert first is not None
    assert seen.last_transition_time == first.last_transition_time


def test_the_condition_is_absent_if_no_pod_is_desired() -> None:
    assert View(replicas=0).look(seen=deployment(0)) is None
    for state in ("stopped", "paused"):
        view = View(desired_state=state)
        assert view.look(pod()) is None
        assert view.apply(deployment(0)) is None


def test_a_restored_cluster_is_observed_again_after_a_reset() -> None:
    view = View()
    view.look(pod(), seen=deployment(updated=1, generation=9, seen=9))
    older = deployment(updated=1, generation=4, seen=4)
    crashed = pod(ready=False, state=ContainerState(terminated=CRASHED))
    assert words(view.look(crashed, seen=older)) == ("True", "Stable")
    observed = view.row.observed
    forgotten = msgspec.structs.replace(observed, conditions=forget_state(observed.conditions))
    view.row = msgspec.structs.replace(view.row, observed=forgotten)
    assert words(view.look(crashed, seen=older)) == ("False", "Restarted")


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("05-pod-running", {"Waiting", "Stable"}),
        ("05-pod-crashloop", {"Waiting", "Restarted", "Stable"}),
        ("05-pod-oomkilled", {"Waiting", "Restarted", "Stable"}),
        ("05-pod-start-error", {"Waiting", "Restarted"}),
        ("05-pod-init-failing", {"Waiting", "Restarted"}),
        ("05-pod-imagepull", {"Waiting"}),
        ("05-pod-configerror-secret", {"Waiting"}),
        ("05-pod-readiness-failing", {"Waiting"}),
        ("05-pod-unschedulable", {"Waiting"}),
    ],
)
def test_recorded_states_of_a_real_kubelet_have_the_expected_reasons(name: str, reasons: set[str]) -> None:
    view = View()
    seen = []
    for state in recorded.pods(name):
        owner = (OwnerReference("ReplicaSet", "web-2"),)
        owned = msgspec.structs.replace(
            state, metadata=msgspec.structs.replace(state.metadata, owner_references=owner)
        )
        condition = view.look(owned)
        assert condition is not None
        seen.append(condition.reason)
    assert set(seen) == reasons, seen
