"""Whether a rollout has ended, and the state of a container during it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pilothouse_server.containers.model import Container, Observed
from pilothouse_server.containers.observation import observe
from pilothouse_server.containers.rollout import applied_rollout
from pilothouse_server.containers.workloads import REVISION
from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
    Deployment,
    DeploymentSpec,
    ObjectCondition,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodState,
    ReplicaSet,
    Waiting,
    WorkloadState,
)
from pilothouse_server.values.resources import Condition
from tests.kubernetes.containers import container

NOW = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)
LATE = ObjectCondition("Progressing", "False", "ProgressDeadlineExceeded", "it has timed out progressing.")


def deployment(
    wanted: int = 1,
    *,
    updated: int = 0,
    replicas: int | None = None,
    available: int | None = None,
    generation: int = 2,
    seen: int = 2,
    paused: bool = False,
    conditions: tuple[ObjectCondition, ...] = (),
) -> Deployment:
    replicas = wanted if replicas is None else replicas
    return Deployment(
        metadata=ObjectMeta(name="web", uid="d", generation=generation, annotations={REVISION: "2"}),
        spec=DeploymentSpec(replicas=wanted, paused=paused),
        status=WorkloadState(
            observed_generation=seen,
            replicas=replicas,
            updated_replicas=updated,
            available_replicas=replicas if available is None else available,
            conditions=conditions,
        ),
    )


def with_metadata(made: Deployment, **fields: Any) -> Deployment:
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, **fields))


SETS = [
    ReplicaSet(metadata=ObjectMeta(name=f"web-{number}", annotations={REVISION: str(number)}))
    for number in (1, 2)
]


def pod(revision: int, name: str, *, waits: str = "", ready: bool = False, ending: bool = False) -> Pod:
    state = ContainerState(waiting=Waiting(waits, "so it says")) if waits else ContainerState()
    return Pod(
        metadata=ObjectMeta(
            name=name,
            uid=name,
            owner_references=(OwnerReference("ReplicaSet", f"web-{revision}"),),
            deletion_timestamp=NOW if ending else None,
        ),
        status=PodState(
            phase="Running" if ready else "Pending",
            conditions=(ObjectCondition("Ready", "True" if ready else "False"),),
            container_statuses=(ContainerStatus("main", ready=ready, state=state),),
        ),
    )


def look(seen: Deployment | None, *pods: Pod, subject: Container | None = None) -> tuple[Observed, Condition]:
    observed = observe(subject or container(), seen, SETS, pods, now=NOW).observed
    return observed, next(c for c in observed.conditions if c.type == "RolledOut")


OLD = pod(1, "old", ready=True)
NEW = pod(2, "new", ready=True)


def test_a_completed_rollout_has_no_reason() -> None:
    observed, rolled_out = look(deployment(updated=1), NEW)
    assert (observed.status, observed.reason, observed.message) == ("running", "", "")
    assert (rolled_out.status, rolled_out.reason) == ("True", "RolledOut")


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError"])
def test_the_newest_pods_explain_a_blocked_rollout_while_old_ones_serve(reason: str) -> None:
    during = deployment(updated=1, replicas=2, available=1)
    observed, rolled_out = look(during, OLD, pod(2, "new", waits=reason))
    assert (observed.status, observed.reason, observed.message) == ("running", reason, "so it says")
    assert (rolled_out.status, rolled_out.reason) == ("False", reason)


@pytest.mark.parametrize("waits", ["", "ContainerCreating"])
def test_starting_pods_of_the_newest_template_are_a_rollout_in_progress(waits: str) -> None:
    observed, _ = look(deployment(updated=1, replicas=2, available=1), OLD, pod(2, "new", waits=waits))
    assert (observed.status, observed.reason) == ("running", "RollingOut")
    assert observed.message == "1 of 1 replicas are of the newest template, 1 older ones are left"


def test_failing_old_pods_do_not_explain_the_rollout() -> None:
    during = deployment(2, updated=1, replicas=4, available=2)
    old = (OLD, pod(1, "old-2", ready=True), pod(1, "old-3", waits="ImagePullBackOff"))
    assert look(during, *old, pod(2, "new"))[0].reason == "RollingOut"


def test_a_rollout_has_ended_only_when_no_older_pods_are_left() -> None:
    """Both the counters and the pods are checked: either may be ahead."""
    ended = deployment(updated=1)
    assert look(ended, OLD, NEW)[1].status == "False"
    assert look(deployment(updated=1, replicas=2), NEW)[1].status == "False"
    # A terminating pod serves no requests, and may take long.
    assert look(ended, pod(1, "old", ready=True, ending=True), NEW)[1].status == "True"


def test_counters_that_lag_behind_the_pods_are_not_a_reason() -> None:
    observed, rolled_out = look(deployment(2, updated=2, available=1), NEW, pod(2, "b", ready=True))
    assert (observed.status, observed.reason, rolled_out.status) == ("running", "", "False")


def test_a_template_that_the_controller_has_not_seen_is_not_rolled_out() -> None:
    """All counters, and the condition of failure, still belong to the template before."""
    observed, rolled_out = look(
        deployment(updated=1, generation=3, conditions=(LATE,)), pod(2, "new", ready=True)
    )
    assert (observed.status, observed.reason) == ("running", "RollingOut")
    assert rolled_out.status == "False"


def test_a_failed_rollout_is_reported_with_its_cause() -> None:
    during = deployment(updated=1, replicas=2, available=1, conditions=(LATE,))
    observed, rolled_out = look(during, OLD, pod(2, "new", waits="ImagePullBackOff"))
    assert (observed.status, observed.reason) == ("running", "ImagePullBackOff")
    assert observed.message == "so it says; ProgressDeadlineExceeded"
    assert (rolled_out.status, rolled_out.reason) == ("False", "ProgressDeadlineExceeded")
    assert rolled_out.message == "it has timed out progressing. ImagePullBackOff: so it says"
    assert look(during, OLD, pod(2, "new"))[0].reason == "ProgressDeadlineExceeded"


def test_refused_new_pods_are_reported_while_old_ones_serve() -> None:
    refused = ObjectCondition("ReplicaFailure", "True", "FailedCreate", "exceeded quota")
    observed, _ = look(deployment(updated=0, conditions=(refused,)), OLD)
    assert (observed.status, observed.reason, observed.message) == (
        "running", "FailedCreate", "exceeded quota",
    )  # fmt: skip


def test_surplus_pods_of_the_newest_template_do_not_matter() -> None:
    surplus = deployment(1, updated=3, replicas=3)
    observed, rolled_out = look(surplus, NEW, pod(2, "b", ready=True), pod(2, "c", ready=True))
    assert (observed.status, observed.reason, rolled_out.status) == ("running", "", "True")


def test_added_replicas_are_rolled_out_once_they_are_available() -> None:
    assert look(deployment(3, updated=1, replicas=1), NEW)[1].status == "False"
    assert look(deployment(2, updated=2, available=1), NEW, pod(2, "b"))[1].status == "False"
    assert look(deployment(2, updated=2), NEW, pod(2, "b", ready=True))[1].status == "True"


def test_a_held_rollout_is_reported_only_while_a_change_is_held_back() -> None:
    held = container(hold_rollout=True)
    observed, rolled_out = look(
        with_metadata(deployment(updated=0, paused=True), annotations={REVISION: "1"}), OLD, subject=held
    )
    assert (observed.status, observed.reason, rolled_out.reason) == ("running", "RolloutHeld", "RolloutHeld")
    assert look(deployment(updated=1, paused=True), NEW, subject=held)[0].reason == ""
    scaled = look(deployment(3, updated=1, replicas=1, paused=True), NEW, subject=held)
    assert scaled[1].reason == "RollingOut"
    # Others may hold the rollout, too, and are not the caller that resumes it.
    others = with_metadata(deployment(updated=0, paused=True), annotations={REVISION: "1"})
    observed, rolled_out = look(others, OLD, subject=container(observed_generation=1))
    assert (observed.status, observed.reason) == ("running", "RolloutPaused")
    assert "others" in rolled_out.message


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"generation": 4, "observed_generation": 3}, "RollingOut"),
        ({"generation": 4, "observed_generation": 4}, "RolloutPaused"),
        (
            {
                "generation": 4,
                "observed_generation": 4,
                "observed": Observed(conditions=(Condition("Applied", "False", "Forbidden"),)),
            },
            "RollingOut",
        ),
    ],
    ids=["resume not applied yet", "resume applied", "resume refused"],
)
def test_a_pause_is_attributed_to_others_only_after_an_applied_resume(
    row: dict[str, Any], reason: str
) -> None:
    still_paused = with_metadata(deployment(updated=0, paused=True), annotations={REVISION: "1"})
    assert look(still_paused, OLD, subject=container(**row))[1].reason == reason


def test_zero_replicas_are_rolled_out_and_stopped_ones_have_no_rollout() -> None:
    observed, rolled_out = look(deployment(0), subject=container(replicas=0))
    assert (observed.status, rolled_out.status) == ("stopped", "True")
    for state in ("stopped", "paused"):
        stopped = observe(container(desired_state=state), deployment(0), SETS, (), now=NOW).observed
        assert "RolledOut" not in {c.type for c in stopped.conditions}


def test_an_older_view_does_not_replace_the_result_of_a_newer_one() -> None:
    """The worker reports the generation that it created.

    The observer's watch may not have received it.
    """
    applied = applied_rollout(container(), deployment(updated=1, generation=3, seen=2))
    assert applied is not None
    assert (applied.status, applied.reason) == ("False", "RollingOut")
    known = container(observed=Observed(status="running", conditions=(applied,)))
    behind, rolled_out = look(deployment(updated=1, generation=2), NEW, subject=known)
    assert (behind.reason, rolled_out.status) == ("RollingOut", "False")
    ended, rolled_out = look(deployment(updated=1, generation=3, seen=3), NEW, subject=known)
    assert (ended.reason, rolled_out.status) == ("", "True")
    # The response to an apply also does not replace a newer observation of the same state.
    seen = container(observed=ended)
    again = applied_rollout(seen, deployment(updated=1, generation=3, seen=2))
    assert again is not None
    assert again.status == "True"
    # The generations of a recreated Deployment begin at one again.
    anew = with_metadata(deployment(updated=1, generation=1, seen=1), uid="e")
    assert look(anew, NEW, subject=known)[1].status == "True"


def test_observing_twice_changes_nothing() -> None:
    during = deployment(updated=1, replicas=2, available=1, conditions=(LATE,))
    once, _ = look(during, OLD, pod(2, "new", waits="ImagePullBackOff"))
    later = container(observed=msgspec.structs.replace(once))
    arguments: Any = (during, OLD, pod(2, "new", waits="ImagePullBackOff"))
    assert look(*arguments, subject=later)[0] == once
