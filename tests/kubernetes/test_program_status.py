"""The state of each program of a container, from states of a real kubelet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
import pytest

from pilothouse_server.containers.model import Container, ContainerSpec, InitContainer, Program
from pilothouse_server.containers.observation import Observation, observe
from pilothouse_server.containers.workloads import REVISION
from pilothouse_server.kubernetes.objects import (
    ContainerState,
    ContainerStatus,
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
from pilothouse_server.kubernetes.pod_observation import waits_without_saying_why
from pilothouse_server.values.programs import ProgramStatus
from tests.kubernetes import recorded
from tests.kubernetes.containers import container
from tests.kubernetes.test_observation import NOW, deployment, killed_by_its_probe

SIDECARS = "26-sidecars-and-init-containers"
DEBUGGED, RESIZED = "27-ephemeral-containers", "12-pod-resize"
TRIO = "28-deployment-of-three-containers-one-crashing"


def looks(
    name: str, pod_name: str, subject: Container, *, seconds: float = 1.0
) -> Iterator[tuple[Pod, Observation]]:
    """Yields each state of a pod with its observation.

    The observation is made `seconds` after the pod's last change, and is based on the previous one.
    """
    for pod in recorded.pods(name):
        if pod.metadata.name != pod_name or pod.metadata.deletion_timestamp is not None:
            continue
        now = latest(pod) + timedelta(seconds=seconds)
        seen = observe(subject, deployment(), (), [pod], now=now)
        subject = msgspec.structs.replace(subject, observed=seen.observed)
        yield pod, seen


def latest(pod: Pod) -> datetime:
    """Returns when a program of the pod last began or ended."""
    times = [pod.metadata.creation_timestamp or NOW]
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        for state in (status.state, status.last_state):
            if state.running is not None and state.running.started_at is not None:
                times.append(state.running.started_at)
            if state.terminated is not None and state.terminated.finished_at is not None:
                times.append(state.terminated.finished_at)
    return max(times)


def program(observation: Observation, name: str) -> ProgramStatus:
    return next(each for each in observation.observed.programs if each.name == name)


def shown(each: ProgramStatus) -> tuple[str, str, str, int]:
    return f"{each.ready_pods}/{each.pods}", each.state, each.reason, each.restart_count


def native() -> Container:
    spec = ContainerSpec(init_containers=(InitContainer("log", "busybox:1", restart_policy="Always"),))
    return container(spec=spec)


@pytest.mark.parametrize(
    ("name", "pod_name", "generations", "restarts"), [(DEBUGGED, "app", 4, 0), (RESIZED, "grow", 8, 2)]
)
def test_ephemeral_containers_and_resizes_do_not_disturb_a_container(
    name: str, pod_name: str, generations: int, restarts: int
) -> None:
    seen = list(looks(name, pod_name, container()))
    assert max(pod.metadata.generation for pod, _ in seen) == generations
    ran = [each.observed for pod, each in seen if pod.metadata.generation > 1]
    assert {(each.status, each.ready_replicas, len(each.programs)) for each in ran} == {("running", 1, 1)}
    assert {each.type for each in ran[-1].conditions if each.status == "True"} == {"RolledOut"}
    assert ran[-1].programs[0].restart_count == restarts


def trio() -> Container:
    spec = ContainerSpec(
        pod_container_name="web", sidecars=(Program("cache", "redis:1"), Program("agent", "busybox:1"))
    )
    return container(spec=spec, replicas=2)


def test_a_crashing_native_sidecar_backs_off_from_its_second_end() -> None:
    states = [program(seen, "log") for _, seen in looks(SIDECARS, "crash", native())]
    assert [each.kind for each in states] == ["native_sidecar"] * len(states)
    steps = [shown(each) for each in states]
    steps = [step for at, step in enumerate(steps) if at == 0 or steps[at - 1] != step]
    assert steps == [
        ("0/1", "waiting", "", 0),
        ("1/1", "running", "", 0),
        ("0/1", "terminated", "Error", 0),
        ("1/1", "running", "", 1),
        ("0/1", "waiting", "CrashLoopBackOff", 1),
        ("1/1", "running", "", 2),
        ("0/1", "waiting", "CrashLoopBackOff", 2),
        ("1/1", "running", "", 3),
        ("0/1", "waiting", "CrashLoopBackOff", 3),
    ]
    last = states[-1]
    assert (last.message, last.exit_code, last.exit_reason) == ("last exit: Error, exit code 5", 5, "Error")
    assert (last.image, last.pod) == ("docker.io/library/busybox:1.37", "crash")
    assert "@sha256:" in last.image_id


def test_a_container_names_a_crashing_native_sidecar_and_does_not_flap() -> None:
    found = [seen.observed for _, seen in looks(SIDECARS, "crash", native())]
    statuses = [each.status for each in found]
    first = statuses.index("crash_loop_back_off")
    assert set(statuses[first:]) == {"crash_loop_back_off"}
    assert {each.message for each in found[first:]} >= {
        "program log ended again; last exit: Error, exit code 5"
    }
    assert all(each.message.startswith("program log") for each in found[first:])
    ended = next(each for each in found if each.reason == "Error")
    assert ended.message == "program log: Error, exit code 5"
    stable = [next(c for c in each.conditions if c.type == "Stable") for each in found]
    assert all(each.reason != "Stable" for each in stable[first:])


def test_a_sidecar_that_crashes_in_each_pod_is_counted_across_pods() -> None:
    subject, states, statuses = trio(), [], []
    pods: dict[str, Pod] = {}
    for pod in recorded.pods(TRIO):
        if not pod.metadata.name.startswith("trio-67d984c9b-") or pod.metadata.deletion_timestamp is not None:
            continue
        pods[pod.metadata.name] = pod
        seen = observe(subject, deployment(2), (), pods.values(), now=latest(pod) + timedelta(seconds=1))
        subject = msgspec.structs.replace(subject, observed=seen.observed)
        states.append([shown(each) for each in seen.observed.programs])
        statuses.append(seen.observed.status)
    both = [each for each in states if each and each[0][0].endswith("/2")]
    # Programs are in the order of the pod; Kubernetes lists statuses by name.
    assert [each.name for each in subject.observed.programs] == ["web", "cache", "agent"]
    assert [each.kind for each in subject.observed.programs] == ["main", "sidecar", "sidecar"]
    assert both[-1] == [
        ("2/2", "running", "", 0),
        ("2/2", "running", "", 0),
        ("0/2", "waiting", "CrashLoopBackOff", 4),
    ]
    assert [("2/2", "running", "", 0)] * 3 in both
    agent = subject.observed.programs[2]
    assert (agent.exit_code, agent.message) == (11, "last exit: Error, exit code 11")
    assert subject.observed.restart_count == sum(each.restart_count for each in subject.observed.programs)
    first = statuses.index("crash_loop_back_off")
    assert set(statuses[first:]) == {"crash_loop_back_off"}
    assert "program agent" in subject.observed.message


def test_a_pod_is_not_ready_while_one_of_its_programs_is_not() -> None:
    mine = trio()
    seen = [each for _, each in looks(TRIO, "trio-6b9cc58b48-gsswp", mine)][-1]
    assert [shown(each)[:2] for each in seen.observed.programs] == [
        ("1/1", "running"),
        ("1/1", "running"),
        ("0/1", "running"),
    ]
    assert (seen.observed.ready_replicas, seen.observed.reason) == (0, "ContainersNotReady")
    assert "agent" in seen.observed.message


def test_a_failing_startup_probe_of_a_native_sidecar_is_the_reason() -> None:
    held = next(
        pod
        for pod, seen in looks(SIDECARS, "gate", native())
        if program(seen, "proxy").state == "running" and pod.status.phase == "Pending"
    )
    assert waits_without_saying_why(held)
    told = observe(native(), deployment(), (), [held], recorded.events(SIDECARS), now=NOW).observed
    assert told.reason == "Unhealthy"
    assert told.message.startswith("program proxy: Startup probe failed")
    assert [shown(each)[:3] for each in told.programs] == [("0/1", "running", ""), ("0/1", "waiting", "")]


def test_a_completed_init_container_is_ready_and_reported_as_completed() -> None:
    seen = [each for _, each in looks(SIDECARS, "once", container())]
    failed = next(each for each in seen if each.observed.reason == "Error")
    assert failed.observed.message == "program one: Error, exit code 7"
    one, main = seen[-1].observed.programs
    assert (one.kind, *shown(one)) == ("init", "1/1", "terminated", "Completed", 1)
    assert (one.exit_code, one.message) == (0, "")
    assert (main.kind, *shown(main)) == ("main", "1/1", "running", "", 0)
    # As in kubectl, the restarts of a completed init container do not count.
    assert seen[-1].observed.restart_count == 0


def pod_of(
    *statuses: ContainerStatus, init: ContainerStatus | None = None, reason: str = "ContainersNotReady"
) -> Pod:
    before = () if init is None else (PodContainer(init.name, "a:1", "Always"),)
    return Pod(
        spec=PodSpec("node-1", tuple(PodContainer(each.name, "a:1") for each in statuses), before),
        status=PodState(
            phase="Running",
            conditions=(ObjectCondition("Ready", "False", reason),),
            init_container_statuses=() if init is None else (init,),
            container_statuses=statuses,
        ),
    )


RUNS = ContainerStatus("main", ready=True, started=True, state=ContainerState(running=Running(NOW)))

# A program that exists only in pods of an older template.
GONE = msgspec.structs.replace(RUNS, name="gone")


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_native_sidecar_that_ends_is_in_a_crash_loop_for_any_exit_code(exit_code: int) -> None:
    """A native sidecar must run as long as its pod."""
    ended = ContainerState(terminated=Terminated(exit_code=exit_code, reason="Completed", finished_at=NOW))
    mesh = ContainerStatus("mesh", restart_count=1, state=ended, last_state=ended)
    told = observe(container(), deployment(), (), [pod_of(RUNS, init=mesh)], now=NOW).observed
    assert (told.status, told.reason) == ("crash_loop_back_off", "CrashLoopBackOff")
    assert "program mesh ended again" in told.message


def test_no_program_is_ready_on_a_node_that_does_not_respond() -> None:
    told = observe(container(), deployment(), (), [pod_of(RUNS, reason="")], now=NOW).observed
    assert [(*shown(each)[:3],) for each in told.programs] == [("0/1", "running", "NodeNotReady")]


def test_a_program_without_an_image_is_named_in_a_pod_of_several() -> None:
    pulling = ContainerState(waiting=Waiting("ImagePullBackOff", "Back-off pulling image"))
    lacks = ContainerStatus("exporter", state=pulling)
    several = observe(container(), deployment(), (), [pod_of(RUNS, lacks)], now=NOW).observed
    assert several.message == "program exporter: Back-off pulling image"
    alone = observe(container(), deployment(), (), [pod_of(lacks)], now=NOW).observed
    assert alone.message == "Back-off pulling image"


def test_the_number_of_programs_added_by_others_is_limited() -> None:
    added = [msgspec.structs.replace(RUNS, name=f"added-{number}") for number in range(50)]
    told = observe(container(), deployment(), (), [pod_of(RUNS, *added)], now=NOW).observed
    assert [each.name for each in told.programs] == ["main"]
    few = observe(container(), deployment(), (), [pod_of(RUNS, *added[:2])], now=NOW).observed
    assert [(each.name, each.kind) for each in few.programs][1:] == [
        ("added-0", "sidecar"),
        ("added-1", "sidecar"),
    ]


def test_the_state_is_of_the_newest_pods_and_counts_include_all_pods() -> None:
    """Old pods serve, and their restarts count, while pods of a newer template crash."""
    sets = [
        ReplicaSet(metadata=ObjectMeta(name=f"web-{number}", annotations={REVISION: str(number)}))
        for number in (1, 2)
    ]
    crashes = ContainerState(waiting=Waiting("CrashLoopBackOff", "back-off 10s"))
    ended = ContainerState(terminated=Terminated(exit_code=137, reason="OOMKilled"))
    exporter = msgspec.structs.replace(RUNS, name="exporter", restart_count=2)
    broken = ContainerStatus("exporter", restart_count=3, state=crashes, last_state=ended)
    old, new = (
        msgspec.structs.replace(
            pod_of(*statuses),
            metadata=ObjectMeta(
                name=f"web-{number}-a",
                uid=str(number),
                creation_timestamp=NOW,
                owner_references=(OwnerReference("ReplicaSet", f"web-{number}"),),
            ),
        )
        for number, statuses in ((1, (RUNS, exporter, GONE)), (2, (RUNS, broken)))
    )
    told = observe(container(), deployment(), sets, [old, new], now=NOW).observed
    assert [(each.name, *shown(each)) for each in told.programs] == [
        ("main", "2/2", "running", "", 0),
        ("exporter", "1/2", "waiting", "CrashLoopBackOff", 5),
    ]
    worst = told.programs[1]
    assert (worst.pod, worst.exit_code, worst.message) == (
        "web-2-a",
        137,
        "last exit: OOMKilled, exit code 137",
    )
    assert told.restart_count == 5
    # Until a pod of the newest template exists, the programs of the former template are shown.
    alone = observe(container(), deployment(), sets, [old], now=NOW).observed
    assert [each.name for each in alone.programs] == ["main", "exporter", "gone"]
    ending = msgspec.structs.replace(
        old, metadata=msgspec.structs.replace(old.metadata, deletion_timestamp=NOW)
    )
    assert observe(container(), deployment(), sets, [ending], now=NOW).observed.programs == ()


def test_a_kill_by_a_probe_stays_reported_without_events() -> None:
    events = recorded.events("05-pod-liveness-failing")
    killed = killed_by_its_probe(state=ContainerState(waiting=Waiting("CrashLoopBackOff")))
    told = observe(container(), deployment(), (), [killed], events, now=NOW).observed
    main = told.programs[0]
    assert (main.exit_reason, main.exit_code) == ("Unhealthy", 0)
    assert "Liveness probe failed" in main.message
    later = observe(container(observed=told), deployment(), (), [killed], now=NOW).observed
    assert later.programs == told.programs
