"""The reported state of a container, from recorded states of a real kubelet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pilothouse_server.containers.model import Container, Observed, Status
from pilothouse_server.containers.observation import Observation, observe, until_no_pods
from pilothouse_server.kubernetes.conditions import APPLIED, set_condition
from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
    Deployment,
    DeploymentSpec,
    ObjectCondition,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodState,
    ReplicaSet,
    Running,
    Terminated,
    Waiting,
    WorkloadState,
)
from pilothouse_server.kubernetes.pod_observation import observe_pod
from pilothouse_server.values.resources import Condition
from tests.kubernetes import recorded
from tests.kubernetes.containers import container

NOW = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)


def deployment(replicas: int = 1, **status: Any) -> Deployment:
    """Returns a Deployment that is rolled out, except for the values in `status`."""
    counts = dict.fromkeys(("replicas", "updated_replicas", "available_replicas"), replicas)
    return Deployment(
        metadata=ObjectMeta(name="web", uid="d", generation=1),
        spec=DeploymentSpec(replicas=replicas),
        status=WorkloadState(**{"observed_generation": 1, **counts, **status}),
    )


def seen(name: str, subject: Container | None = None) -> list[Observation]:
    """Returns the observations of a recording's pod states, in order.

    Each observation is based on the previous one.
    """
    subject = subject or container()
    result: list[Observation] = []
    for pod in recorded.pods(name):
        result.append(observe(subject, deployment(), (), [pod], now=NOW))
        subject = msgspec.structs.replace(subject, observed=result[-1].observed)
    return result


def changes(observations: list[Observation]) -> list[Status]:
    statuses = [observation.observed.status for observation in observations]
    return [status for index, status in enumerate(statuses) if index == 0 or statuses[index - 1] != status]


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("05-pod-imagepull", "pending", "ErrImagePull"),
        ("05-pod-image-never", "pending", "ErrImageNeverPull"),
        ("05-pod-invalid-image-name", "pending", "InvalidImageName"),
        ("05-pod-configerror-secret", "pending", "CreateContainerConfigError"),
        ("05-pod-unschedulable", "pending", "Unschedulable"),
        ("05-pod-pvc-missing", "pending", "Unschedulable"),
        ("05-pod-readiness-failing", "pending", "ContainersNotReady"),
        ("05-pod-volume-configmap-missing", "pending", "ContainerCreating"),
        ("05-pod-crashloop", "crash_loop_back_off", "CrashLoopBackOff"),
        ("05-pod-oomkilled", "crash_loop_back_off", "CrashLoopBackOff"),
        ("05-pod-start-error", "crash_loop_back_off", "CrashLoopBackOff"),
        ("05-pod-init-failing", "crash_loop_back_off", "CrashLoopBackOff"),
        ("05-pod-node-evicted", "failed", "Evicted"),
        ("05-pod-deadline-exceeded", "failed", "DeadlineExceeded"),
        ("05-pod-failed", "failed", "Error"),
        ("05-pod-two-containers", "running", ""),
        ("05-pod-running", "running", ""),
        ("05-pod-liveness-failing", "running", ""),
    ],
)
def test_the_last_state_before_deletion_has_its_status_and_reason(
    name: str, status: str, reason: str
) -> None:
    alive = [pod for pod in recorded.pods(name) if pod.metadata.deletion_timestamp is None]
    observed = observe(container(), deployment(), (), alive[-1:], now=NOW).observed
    assert (observed.status, observed.reason) == (status, reason)


def test_a_state_written_after_the_cluster_went_away_stays_stale() -> None:
    """Only the health check ends staleness; a recheck of the known objects is no sign of life."""
    before = container()
    stale = msgspec.structs.replace(
        before, observed=msgspec.structs.replace(before.observed, stale_since=NOW)
    )
    for workload in (deployment(), None):
        assert (
            observe(stale, workload, (), recorded.pods("05-pod-running")[-1:], now=NOW).observed.stale_since
            == NOW
        )


def test_a_pod_is_pending_then_running_then_terminating() -> None:
    observations = seen("05-pod-running")
    assert changes(observations) == ["pending", "running", "pending"]
    running = next(o for o in observations if o.observed.status == "running")
    assert running.observed.phase == "Running"
    assert running.observed.pod_name == running.pods[0].name
    assert running.observed.pod_ip
    assert running.observed.host_ip
    assert running.observed.started_at is not None
    assert running.pods[0].image_id.startswith(("docker.io/", "sha256:"))
    assert observations[-1].pods[0].phase == "Terminating"


def test_an_oom_kill_is_named_as_the_reason_and_in_the_back_off() -> None:
    observations = seen("05-pod-oomkilled")
    assert "OOMKilled" in [o.observed.reason for o in observations]
    looping = next(o for o in observations if o.observed.status == "crash_loop_back_off")
    assert "OOMKilled, exit code 137" in looping.observed.message


def test_a_failing_init_container_is_the_reason() -> None:
    reasons = [o.observed.reason for o in seen("05-pod-init-failing")]
    assert "Error" in reasons
    assert "CrashLoopBackOff" in reasons


def test_a_crash_loop_does_not_flap_at_each_attempt() -> None:
    """The pod is ready for a moment after each restart, which is not running."""
    subject = container()
    statuses: list[Status] = []
    for pod in recorded.pods("05-pod-crashloop"):
        if pod.metadata.deletion_timestamp is not None:
            break
        started = [
            status.state.running.started_at
            for status in pod.status.container_statuses
            if status.state.running is not None and status.state.running.started_at is not None
        ]
        now = (started[0] if started else NOW) + timedelta(seconds=1)
        observation = observe(subject, deployment(), (), [pod], now=now)
        subject = msgspec.structs.replace(subject, observed=observation.observed)
        statuses.append(observation.observed.status)
    first = statuses.index("crash_loop_back_off")
    assert set(statuses[first:]) == {"crash_loop_back_off"}


def test_a_crash_loop_is_rechecked_and_running_once_it_settles() -> None:
    looping = container(observed=Observed(status="crash_loop_back_off", reason="CrashLoopBackOff"))
    restarted = [
        pod for pod in recorded.pods("05-pod-crashloop") if observe_pod(pod, "main").restart_count == 2
    ]
    up = next(pod for pod in restarted if observe_pod(pod, "main").ready)
    started = up.status.container_statuses[0].state.running
    assert started is not None
    assert started.started_at is not None
    early = observe(looping, deployment(), (), [up], now=started.started_at + timedelta(seconds=4))
    late = observe(looping, deployment(), (), [up], now=started.started_at + timedelta(seconds=11))
    assert (early.observed.status, early.recheck_seconds) == ("crash_loop_back_off", 6.0)
    assert (late.observed.status, late.recheck_seconds) == ("running", None)


def test_a_missing_program_is_in_a_crash_loop_that_does_not_flap() -> None:
    """The next attempt, `RunContainerError`, lies between two back-offs."""
    alive = [
        observation
        for observation in seen("05-pod-start-error")
        if not any(pod.deleting for pod in observation.pods)
    ]
    assert changes(alive) == ["pending", "crash_loop_back_off"]
    assert {o.observed.reason for o in alive if o.observed.status != "pending"} == {"CrashLoopBackOff"}
    assert "no such file" in alive[-1].observed.message


def killed_by_its_probe(**status: Any) -> Pod:
    """Returns the recorded pod whose liveness probe has failed, as it starts again."""
    again = next(
        pod for pod in recorded.pods("05-pod-liveness-failing") if observe_pod(pod, "main").restart_count == 1
    )
    main = msgspec.structs.replace(again.status.container_statuses[0], ready=False, **status)
    unready = tuple(
        msgspec.structs.replace(each, status="False") if each.type == "Ready" else each
        for each in again.status.conditions
    )
    return msgspec.structs.replace(
        again,
        status=msgspec.structs.replace(again.status, conditions=unready, container_statuses=(main,)),
    )


def test_a_program_killed_by_a_probe_is_not_reported_as_completed() -> None:
    events = recorded.events("05-pod-liveness-failing")
    told = observe(container(), deployment(), (), [killed_by_its_probe()], events, now=NOW).observed
    assert (told.status, told.reason) == ("pending", "Unhealthy")
    assert told.message == "Liveness probe failed; the container was killed"
    back_off = ContainerState(waiting=Waiting(reason="CrashLoopBackOff", message="back-off 10s"))
    pod = killed_by_its_probe(state=back_off)
    told = observe(container(), deployment(), (), [pod], events, now=NOW).observed
    assert (told.status, told.reason) == ("crash_loop_back_off", "CrashLoopBackOff")
    assert "Liveness probe failed" in told.message
    # Once known, the reason of this end stays when the cluster has deleted its events. It does not apply to
    # the next end.
    known = container(observed=told)
    assert observe(known, deployment(), (), [pod], now=NOW).observed == told
    again = msgspec.structs.replace(told, restart_count=told.restart_count - 1)
    later = observe(container(observed=again), deployment(), (), [pod], now=NOW).observed
    assert "last exit: Completed, exit code 0" in later.message
    # A kill before the program began, and one of another pod, do not explain this end.
    late = [msgspec.structs.replace(e, last_timestamp=NOW - timedelta(days=1)) for e in events]
    for others in (late, recorded.events("05-pod-readiness-failing")):
        told = observe(container(), deployment(), (), [pod], others, now=NOW).observed
        assert "last exit: Completed, exit code 0" in told.message


def test_a_container_being_deleted_is_not_reported_as_being_created() -> None:
    told = observe(container(deletion_requested_at=NOW), None, now=NOW).observed
    assert (told.status, told.reason) == ("pending", "Deleting")


def looping(exit_code: int, *, init: bool = False) -> Pod:
    """Returns a pod whose program has ended for the second time."""
    state = ContainerState(terminated=Terminated(exit_code=exit_code, reason="Completed"))
    status = ContainerStatus(name="main", restart_count=1, state=state, last_state=state)
    waiting = ContainerStatus(name="main", state=ContainerState(waiting=Waiting(reason="PodInitializing")))
    there = (
        PodState(phase="Pending", init_container_statuses=(status,), container_statuses=(waiting,))
        if init
        else PodState(phase="Running", container_statuses=(status,))
    )
    return Pod(metadata=ObjectMeta(name="web-1-a", uid="a"), status=there)


@pytest.mark.parametrize("exit_code", [0, 3])
def test_repeated_ends_are_a_crash_loop_for_any_exit_code(exit_code: int) -> None:
    observed = observe(container(), deployment(), (), [looping(exit_code)], now=NOW).observed
    assert (observed.status, observed.reason) == ("crash_loop_back_off", "CrashLoopBackOff")


def test_restarts_of_an_init_container_count_until_it_completes() -> None:
    assert observe_pod(looping(1, init=True), "main").restart_count == 1
    through = msgspec.structs.replace(
        looping(0, init=True).status.init_container_statuses[0], ready=True, restart_count=5
    )
    pod = looping(1)
    pod = msgspec.structs.replace(
        pod, status=msgspec.structs.replace(pod.status, init_container_statuses=(through,))
    )
    assert observe_pod(pod, "main").restart_count == 1


def test_restarts_of_a_native_sidecar_count_while_it_runs() -> None:
    running = ContainerState(running=Running(started_at=NOW))
    sidecar = ContainerStatus(name="mesh", ready=True, started=True, restart_count=2, state=running)
    pod = looping(1)
    pod = msgspec.structs.replace(
        pod, status=msgspec.structs.replace(pod.status, init_container_statuses=(sidecar,))
    )
    assert observe_pod(pod, "main").restart_count == 3


def test_a_lost_node_is_reported_for_its_pod() -> None:
    """The node controller sets the pod to not ready, and reports nothing else."""
    ready = ready_pod("a")
    conditions = (ObjectCondition(type="Ready", status="False"),)
    pod = msgspec.structs.replace(
        ready,
        spec=PodSpec(node_name="node-a"),
        status=msgspec.structs.replace(ready.status, conditions=conditions),
    )
    observation = observe(container(), deployment(), (), [pod], now=NOW)
    assert observation.observed.status == "pending"
    assert (observation.observed.reason, observation.observed.message) == (
        "NodeNotReady",
        "the node node-a does not respond",
    )
    # Its events contain nothing more.
    assert observation.unexplained == ()


def test_a_failed_mount_is_explained_by_its_event() -> None:
    stuck = recorded.pods("05-pod-volume-configmap-missing")
    waiting = next(pod for pod in stuck if pod.spec.node_name and pod.metadata.deletion_timestamp is None)
    silent = observe(container(), deployment(), (), [waiting], now=NOW)
    assert silent.unexplained == (waiting.metadata.name,)
    events = recorded.events("05-pod-volume-configmap-missing")
    told = observe(container(), deployment(), (), [waiting], events, now=NOW)
    assert told.observed.reason == "FailedMount"
    assert "configmap" in told.observed.message


def test_events_of_other_pods_explain_nothing() -> None:
    stuck = recorded.pods("05-pod-volume-configmap-missing")
    waiting = next(pod for pod in stuck if pod.status.container_statuses)
    events = recorded.events("05-pod-crashloop")
    observed = observe(container(), deployment(), (), [waiting], events, now=NOW).observed
    assert observed.reason == "ContainerCreating"


def ready_pod(name: str, replica_set: str = "web-1", *, at: datetime = NOW) -> Pod:
    ready = next(pod for pod in recorded.pods("05-pod-running") if observe_pod(pod, "main").ready)
    owner = OwnerReference(kind="ReplicaSet", name=replica_set, uid=replica_set)
    metadata = msgspec.structs.replace(
        ready.metadata, name=name, uid=name, creation_timestamp=at, owner_references=(owner,)
    )
    return msgspec.structs.replace(ready, metadata=metadata)


def test_running_needs_every_replica() -> None:
    pods = [ready_pod("a"), ready_pod("b")]
    two_of_three = observe(container(replicas=3), deployment(3), (), pods, now=NOW).observed
    assert (two_of_three.status, two_of_three.ready_replicas) == ("pending", 2)
    assert two_of_three.message == "2 of 3 replicas are ready"
    all_three = observe(container(replicas=3), deployment(3), (), [*pods, ready_pod("c")], now=NOW).observed
    assert (all_three.status, all_three.ready_replicas) == ("running", 3)


def test_running_needs_all_requested_replicas_before_the_cluster_shows_them() -> None:
    one = Observed(status="running", ready_replicas=1)
    asked = container(replicas=3, generation=2, observed_generation=1, observed=one)
    seen = observe(asked, deployment(1), (), [ready_pod("a")], now=NOW).observed
    assert (seen.status, seen.message) == ("pending", "1 of 3 replicas are ready")
    # Applied, but the watch still shows the state before.
    newer = Condition("RolledOut", "False", "RollingOut", made_from="d/2")
    applied = container(
        replicas=3,
        generation=2,
        observed_generation=2,
        observed=msgspec.structs.replace(one, conditions=(newer,)),
    )
    assert observe(applied, deployment(1), (), [ready_pod("a")], now=NOW).observed.status == "pending"
    # A value that others set, and that Pilothouse accepts, is the desired one.
    left = container(replicas=3, generation=2, observed_generation=2, observed=one)
    assert observe(left, deployment(1), (), [ready_pod("a")], now=NOW).observed.status == "running"


def test_the_shown_pod_is_the_oldest_of_the_newest_replica_set() -> None:
    sets = [
        ReplicaSet(metadata=ObjectMeta(name="web-1", annotations={"deployment.kubernetes.io/revision": "9"})),
        ReplicaSet(
            metadata=ObjectMeta(name="web-2", annotations={"deployment.kubernetes.io/revision": "10"})
        ),
    ]
    old = ready_pod("old", "web-1", at=NOW - timedelta(hours=1))
    first = ready_pod("first", "web-2", at=NOW - timedelta(seconds=9))
    second = ready_pod("second", "web-2")
    observed = observe(container(), deployment(2), sets, [second, old, first], now=NOW).observed
    assert (observed.pod_name, observed.replica_set_name) == ("first", "web-2")


@pytest.mark.parametrize(("desired", "status"), [("stopped", "stopped"), ("paused", "paused")])
def test_stopped_and_paused_are_reported_immediately_with_remaining_pods(desired: Any, status: str) -> None:
    subject = container(desired_state=desired)
    before = observe(subject, deployment(1), (), [ready_pod("a")], now=NOW).observed
    during = observe(subject, deployment(0), (), [ready_pod("a")], now=NOW).observed
    counted = msgspec.structs.replace(deployment(0), status=WorkloadState(observed_generation=1, replicas=1))
    unseen = observe(subject, counted, (), [], now=NOW).observed
    assert (unseen.reason, unseen.message) == ("ScalingDown", "the cluster has yet to follow")
    unheard = observe(subject, deployment(0, observed_generation=0), (), [], now=NOW).observed
    assert unheard.reason == "ScalingDown"
    after = observe(subject, deployment(0), (), [], now=NOW).observed
    assert {before.status, during.status, after.status} == {status}
    assert [before.reason, during.reason, after.reason] == ["ScalingDown", "Terminating", ""]
    assert observe(subject, None, now=NOW).observed.status == status


def test_remaining_pods_are_assumed_until_the_cluster_is_observed() -> None:
    ran = Observed(status="running", deployment_name="web", phase="Running")
    assert until_no_pods(container(observed=ran))[0] == "ScalingDown"
    # The Deployment is being created.
    assert until_no_pods(container())[0] == "ScalingDown"
    # No pod is ending, so no later observation would clear the reason.
    for phase in ("", "Failed", "Succeeded"):
        idle = Observed(status="stopped", deployment_name="web", phase=phase)
        assert until_no_pods(container(observed=idle)) == ("", "")
    # A change from one of these states to the other.
    ending = Observed(status="paused", reason="Terminating", message="2 pods are ending")
    moved = container(desired_state="paused", observed=ending)
    assert until_no_pods(moved) == ("Terminating", "2 pods are ending")
    assert until_no_pods(msgspec.structs.replace(moved, observed=Observed(reason="x"))) == ("", "")


def test_paused_has_precedence_over_a_crash_loop() -> None:
    looping = [pod for pod in recorded.pods("05-pod-crashloop") if observe_pod(pod, "main").crash_looping][:1]
    subject = container(desired_state="paused")
    assert observe(subject, deployment(0), (), looping, now=NOW).observed.status == "paused"


def test_a_start_that_the_cluster_has_not_seen_yet_is_pending() -> None:
    observed = observe(container(), deployment(0), now=NOW).observed
    assert (observed.status, observed.reason) == ("pending", "Scaling")


def test_pods_refused_by_a_quota_are_a_failure_with_the_clusters_message() -> None:
    refused = ObjectCondition("ReplicaFailure", "True", "FailedCreate", "pods is forbidden: exceeded quota")
    observed = observe(container(), deployment(conditions=(refused,)), now=NOW).observed
    assert (observed.status, observed.reason) == ("failed", "FailedCreate")
    assert "exceeded quota" in observed.message


def test_a_refused_container_fails_unless_its_deployment_still_runs() -> None:
    refusal = Condition(APPLIED, "False", "Invalid", "spec.template: Required value")
    subject = container(observed=Observed(conditions=(refusal,)))
    without = observe(subject, None, now=NOW).observed
    assert (without.status, without.reason, without.message) == ("failed", "Invalid", refusal.message)
    running = observe(subject, deployment(), (), [ready_pod("a")], now=NOW).observed
    assert (running.status, running.reason, running.message) == ("running", "Invalid", refusal.message)
    assert refusal in running.conditions


def test_a_stalled_rollout_is_a_condition_of_a_running_container() -> None:
    stalled = [
        msgspec.convert(thing, Deployment)
        for thing in recorded.watched("03e-deployment-stalled-rollout", "Deployment")
    ]
    late = next(
        d for d in stalled if any(c.reason == "ProgressDeadlineExceeded" for c in d.status.conditions)
    )
    pods = [ready_pod(str(number)) for number in range(late.spec.replicas)]
    observed = observe(container(), late, (), pods, now=NOW).observed
    assert (observed.status, observed.reason) == ("running", "ProgressDeadlineExceeded")
    progressing = next(c for c in observed.conditions if c.type == "Progressing")
    assert (progressing.status, progressing.reason) == ("False", "ProgressDeadlineExceeded")


def test_a_held_rollout_is_a_condition() -> None:
    held = msgspec.structs.replace(deployment(), spec=DeploymentSpec(replicas=1, paused=True))
    types = {c.type for c in observe(container(hold_rollout=True), held, now=NOW).observed.conditions}
    assert "RolloutHeld" in types


def test_conditions_keep_their_time_while_their_status_stays() -> None:
    first = set_condition((), Condition(APPLIED, "True", "Applied"), NOW)
    later = NOW + timedelta(minutes=1)
    same = set_condition(first, Condition(APPLIED, "True", "AppliedAgain"), later)
    other = set_condition(same, Condition(APPLIED, "False", "Invalid"), later)
    assert [c.last_transition_time for c in (*first, *same, *other)] == [NOW, NOW, later]
    available = ObjectCondition("Available", "True", "MinimumReplicasAvailable")
    seen_first = observe(container(), deployment(conditions=(available,)), now=NOW).observed
    again = observe(container(observed=seen_first), deployment(conditions=(available,)), now=later).observed
    assert again.conditions == seen_first.conditions


def test_observing_twice_changes_nothing() -> None:
    for name in ("05-pod-running", "05-pod-crashloop", "05-pod-imagepull", "05-node-lost"):
        for pod in recorded.pods(name):
            once = observe(container(), deployment(), (), [pod], now=NOW)
            twice = observe(container(observed=once.observed), deployment(), (), [pod], now=NOW)
            assert twice.observed == once.observed, name
