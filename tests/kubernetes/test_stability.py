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
    """One that runs, and is ready unless it is said to be otherwise."""
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
    """The successive states of one container, look after look: each knows the one before."""

    def __init__(self, **row: Any) -> None:
        self.row = container(**{"generation": 2, "observed_generation": 2, **row})
        self.now = NOW
        self.recheck: float | None = None

    def look(self, *pods: Pod, seen: Deployment | None = None, later: float = 1.0) -> Condition | None:
        """Observes after so many seconds; returns the condition."""
        self.now += timedelta(seconds=later)
        seen = seen or deployment(updated=1)
        observation = observe(self.row, seen, SETS, pods, now=self.now)
        self.row = msgspec.structs.replace(self.row, observed=observation.observed)
        self.recheck = observation.recheck_seconds
        return self.condition

    def apply(self, seen: Deployment) -> Condition | None:
        """The worker writes the result of its apply back."""
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


def test_it_is_true_since_all_wanted_pods_are_ready() -> None:
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


def test_a_restart_is_false_until_it_has_settled_and_the_time_begins_anew() -> None:
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


def test_a_restart_that_no_look_saw_begins_the_time_anew() -> None:
    """The server was away, or the program came back between two looks."""
    view = View()
    first = view.look(pod())
    began = NOW + timedelta(seconds=30)
    later = view.look(pod(restarts=1, began=began), later=600)
    assert first is not None
    assert later is not None
    assert (words(first), words(later)) == (("True", "Stable"), ("True", "Stable"))
    assert later.last_transition_time == view.now
    # And so does a time in which it was not ready.
    unready = view.look(pod(restarts=1, began=began, since=began + timedelta(seconds=60)), later=600)
    assert unready is not None
    assert unready.last_transition_time == view.now


def test_restarts_of_old_are_none_of_now() -> None:
    """A scale-up of pods that restarted yesterday waits for the new pod alone."""
    view = View(replicas=2)
    assert words(view.look(pod("a", restarts=4), pod("b", ready=False), seen=deployment(2, updated=2))) == (
        "False",
        "Waiting",
    )
    assert words(view.look(pod("a", restarts=4), pod("b"), seen=deployment(2, updated=2))) == (
        "True",
        "Stable",
    )


def test_pods_of_older_replica_sets_and_those_that_end_do_not_matter() -> None:
    crashing: dict[str, Any] = {
        "ready": False,
        "restarts": 3,
        "state": ContainerState(waiting=Waiting("CrashLoopBackOff")),
    }
    view = View()
    assert words(view.look(pod("old", 1, **crashing), pod())) == ("True", "Stable")
    assert words(view.look(pod("ending", **crashing, deletion_timestamp=NOW), pod())) == ("True", "Stable")
    # The sum of restarts falls when the old pods go.
    assert words(view.look(pod("old", 1, restarts=9), pod(**crashing))) == ("False", "Restarted")
    assert words(view.look(pod(**crashing))) == ("False", "Restarted")


def test_it_stays_restarted_until_all_are_ready() -> None:
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
def test_an_init_container_that_fails_is_a_restart_and_one_that_is_done_is_not(
    state: ContainerState, reason: str
) -> None:
    preparing = pod(ready=False, init=state, state=ContainerState(waiting=Waiting("PodInitializing")))
    assert words(View().look(preparing)) == ("False", reason)


@pytest.mark.parametrize("exit_code", [0, 5])
def test_a_native_sidecar_that_ends_is_a_restart_however_it_ends(exit_code: int) -> None:
    ended = Terminated(exit_code=exit_code, reason="Completed")
    crashed = pod(ready=False, init=ContainerState(terminated=ended))
    spec = PodSpec(init_containers=(PodContainer("prepare", "a:1", "Always"),))
    seen = View().look(msgspec.structs.replace(crashed, spec=spec))
    assert seen is not None
    assert words(seen) == ("False", "Restarted")
    assert seen.message == f"program prepare of pod new ended: Completed, exit code {exit_code}"


def test_what_was_seen_of_an_earlier_generation_does_not_count_for_a_later_one() -> None:
    view = View()
    assert words(view.look(pod())) == ("True", "Stable")
    applied = deployment(updated=0, generation=3, seen=2)
    # The observer has heard of the new state, which its controller has not seen: the pods are those of before.
    assert words(view.look(pod(), seen=applied)) == ("True", "Stable")
    assert words(view.apply(applied)) == ("False", "Waiting")
    # A view that is older yet, and one of the new state that no replica set is known for.
    assert words(view.look(pod())) == ("False", "Waiting")
    followed = with_metadata(deployment(updated=1, generation=3, seen=3), annotations={REVISION: "3"})
    assert words(view.look(pod(), seen=followed)) == ("False", "Waiting")


def test_an_apply_that_changed_nothing_leaves_it_as_it_is() -> None:
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


def test_it_is_absent_where_no_pod_is_wanted() -> None:
    assert View(replicas=0).look(seen=deployment(0)) is None
    for state in ("stopped", "paused"):
        view = View(desired_state=state)
        assert view.look(pod()) is None
        assert view.apply(deployment(0)) is None


def test_a_cluster_that_was_put_back_is_seen_anew() -> None:
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
def test_what_a_real_kubelet_shows(name: str, reasons: set[str]) -> None:
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
