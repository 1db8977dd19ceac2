"""The life of pods: completion, restart policies, init containers, probes, deletion, a restart of the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.nodes.pod_programs import program_of
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.pod_behavior import PodBehavior
from pilothouse_simulator.values.resources import DEPLOYMENTS, EVENTS, NODES, PODS
from tests.simulator.workloads import (
    BEHAVIOR,
    condition,
    container,
    deployment,
    exists,
    is_complete,
    is_ready,
    pod,
    pods_of,
    poll_cluster,
    stored,
)
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]


def _status(cluster: SimulatedCluster, name: str = "one") -> JsonObject:
    status: JsonObject = stored(cluster, PODS, name)["status"]
    return status


def _state(cluster: SimulatedCluster, name: str = "one", field: str = "containerStatuses") -> JsonObject:
    statuses = _status(cluster, name).get(field) or [{}]
    return dict(statuses[0].get("state", {}))


def _reasons(cluster: SimulatedCluster, name: str = "one") -> list[str]:
    events = cluster.store.list(EVENTS, "default")
    mine = [event for event in events if event["involvedObject"]["name"] == name]
    return [event["reason"] for event in sorted(mine, key=lambda event: event["metadata"]["name"])]


@pytest.mark.parametrize(
    ("policy", "behavior", "phase"),
    [("Never", "exit:0", "Succeeded"), ("Never", "exit:3", "Failed"), ("OnFailure", "exit:0", "Succeeded")],
)
@virtual_time
async def test_a_pod_that_ends_has_a_final_phase(policy: str, behavior: str, phase: str) -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", annotations={BEHAVIOR: behavior}, restartPolicy=policy))
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == phase)
        assert _state(cluster)["terminated"]["exitCode"] == int(behavior[-1])
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        assert condition(stored(cluster, PODS, "one"), "Ready")["reason"] == reason


@virtual_time
async def test_failures_are_restarted_on_failure() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", annotations={BEHAVIOR: "exit:1"}, restartPolicy="OnFailure"))
        await poll_cluster(
            cluster, lambda: _state(cluster).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        )
        assert _status(cluster)["phase"] == "Running"


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        ("crash-loop", "CrashLoopBackOff"),
        ("oom", "CrashLoopBackOff"),
        ("image-pull-error", "ErrImagePull"),
        ("image-pull-error", "ImagePullBackOff"),
    ],
)
@virtual_time
async def test_an_annotation_chooses_the_failure(behavior: str, reason: str) -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", annotations={BEHAVIOR: behavior}))
        await poll_cluster(cluster, lambda: _state(cluster).get("waiting", {}).get("reason") == reason)
        last = _status(cluster)["containerStatuses"][0]["lastState"].get("terminated", {})
        assert (last.get("reason") == "OOMKilled") == (behavior == "oom")


@virtual_time
async def test_an_annotation_makes_a_pod_unschedulable() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", annotations={BEHAVIOR: "unschedulable"}))
        await poll_cluster(
            cluster,
            lambda: condition(stored(cluster, PODS, "one"), "PodScheduled").get("reason") == "Unschedulable",
        )
        assert _reasons(cluster) == ["FailedScheduling"]
        assert "nodeName" not in stored(cluster, PODS, "one")["spec"]


@virtual_time
async def test_init_containers_run_one_by_one_before_the_main_one() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        initial = [container("first", "sleep 1"), container("second", "sleep 1")]
        cluster.store.create(PODS, pod("one", initContainers=initial))
        seen: list[tuple[str, ...]] = []

        def is_running() -> bool:
            status = _status(cluster)
            entries = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
            seen.append(tuple(next(iter(entry["state"])) for entry in entries))
            return bool(status["phase"] == "Running")

        await poll_cluster(cluster, is_running)
        assert seen.index(("running", "waiting", "waiting")) < seen.index(
            ("terminated", "running", "waiting")
        )
        assert seen[-1] == ("terminated", "terminated", "running")
        assert condition(stored(cluster, PODS, "one"), "Initialized")["status"] == "True"


@virtual_time
async def test_a_failing_init_container_keeps_the_pod_pending() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", initContainers=[container("init", "exit 1")]))
        await poll_cluster(
            cluster,
            lambda: (
                _state(cluster, field="initContainerStatuses").get("waiting", {}).get("reason")
                == "CrashLoopBackOff"
            ),
        )
        assert _status(cluster)["phase"] == "Pending"
        assert _state(cluster)["waiting"]["reason"] == "PodInitializing"


@virtual_time
async def test_a_sidecar_runs_and_ends_with_the_main_container() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        side = container("side", restartPolicy="Always")
        main = container("main", "sleep 2")
        cluster.store.create(PODS, pod("one", main, initContainers=[side], restartPolicy="Never"))
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == "Running")
        assert "running" in _state(cluster, field="initContainerStatuses")
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == "Succeeded")
        assert "terminated" in _state(cluster, field="initContainerStatuses")


@virtual_time
async def test_a_readiness_probe_delays_readiness_by_its_initial_delay() -> None:
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 3, "periodSeconds": 1}
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", container(readinessProbe=probe)))
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == "Running")
        assert not is_ready(stored(cluster, PODS, "one"))
        running = cluster.clock.elapsed()
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "one")))
        assert cluster.clock.elapsed() - running > 2.5


@virtual_time
async def test_start_seconds_let_probes_fail_at_first() -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    annotations = {"simulate.pilothouse.dev/start-seconds": "3"}
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", container(readinessProbe=probe), annotations=annotations))
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "one")))
        assert "Unhealthy" in _reasons(cluster)


@virtual_time
async def test_a_container_is_started_and_ready_only_after_its_startup_probe() -> None:
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 2, "periodSeconds": 1}
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", container(startupProbe=probe)))
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == "Running")
        first = _status(cluster)["containerStatuses"][0]
        assert (first["started"], first["ready"]) == (False, False)
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "one")))
        assert _status(cluster)["containerStatuses"][0]["started"] is True


@pytest.mark.parametrize("probed", [True, False])
@virtual_time
async def test_readiness_that_fails_leaves_the_pod_running_and_unready(probed: bool) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    main = container(readinessProbe=probe) if probed else container()
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one", main, annotations={BEHAVIOR: "readiness-failing"}))
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == "Running")
        await cluster.clock.sleep(3)
        ready = condition(stored(cluster, PODS, "one"), "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
        assert ("Unhealthy" in _reasons(cluster)) == probed


@virtual_time
async def test_a_process_that_ignores_term_is_killed_after_the_grace_period() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        main = container("main", "sleep 1000")
        cluster.store.create(PODS, pod("one", main, terminationGracePeriodSeconds=4))
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == "Running")
        subscription = cluster.store.subscribe(PODS)
        begun = cluster.clock.elapsed()
        cluster.store.delete(PODS, "default", "one")
        last: JsonObject = {}
        async for event in subscription:
            if event.object["status"]["phase"] in ("Failed", "Succeeded"):
                last = event.object
            if event.type == "DELETED":
                subscription.close()
        assert cluster.clock.elapsed() - begun >= 4
        assert last["status"]["phase"] == "Failed"
        assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


@virtual_time
async def test_a_pod_deleted_while_it_starts_is_removed() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("one"))
        await poll_cluster(cluster, lambda: "nodeName" in stored(cluster, PODS, "one")["spec"])
        cluster.store.delete(PODS, "default", "one")
        await poll_cluster(cluster, lambda: not exists(cluster, PODS, "one"))


@virtual_time
async def test_pod_addresses_are_unique() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 5))
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        addresses = {entry["status"]["podIP"] for entry in pods_of(cluster, "web")}
        assert len(addresses) == 5


@virtual_time
async def test_a_pulled_image_is_pulled_once_and_listed_on_the_node() -> None:
    async with SimulatedCluster(nodes=1, speed=20) as cluster:
        cluster.store.create(PODS, pod("one", container(image="example.com/app:3")))
        await poll_cluster(cluster, lambda: _status(cluster, "one")["phase"] == "Running")
        cluster.store.create(PODS, pod("two", container(image="example.com/app:3")))
        await poll_cluster(cluster, lambda: _status(cluster, "two")["phase"] == "Running")
        assert "Pulling" in _reasons(cluster, "one")
        assert "Pulling" not in _reasons(cluster, "two")

        def listed() -> bool:
            images = stored(cluster, NODES, "node-0")["status"]["images"]
            return any("example.com/app:3" in image["names"] for image in images)

        await poll_cluster(cluster, listed)


@virtual_time
async def test_pods_continue_after_a_restart_of_the_simulator(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 2))
        cluster.store.create(PODS, pod("loop", annotations={BEHAVIOR: "crash-loop"}))
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        await poll_cluster(cluster, lambda: "waiting" in _state(cluster, "loop"))
        before = {entry["metadata"]["uid"]: entry["status"] for entry in pods_of(cluster, "web")}
        restarts = _status(cluster, "loop")["containerStatuses"][0]["restartCount"]
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        await poll_cluster(
            cluster,
            lambda: _status(cluster, "loop")["containerStatuses"][0]["restartCount"] > restarts,
        )
        after = {entry["metadata"]["uid"]: entry["status"] for entry in pods_of(cluster, "web")}
        assert after == before
        cluster.store.delete(DEPLOYMENTS, "default", "web")
        await poll_cluster(cluster, lambda: not pods_of(cluster, "web"))


@virtual_time
async def test_a_container_started_long_before_a_restart_keeps_its_start(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        cluster.store.create(PODS, pod("one"))
        await poll_cluster(cluster, lambda: _status(cluster)["phase"] == "Running")
        started = _state(cluster)["running"]["startedAt"]
    async with SimulatedCluster(speed=20, state_path=path) as cluster:
        worker = cluster.kubelets.worker(stored(cluster, PODS, "one"))
        await poll_cluster(cluster, lambda: cluster.kubelets.worker(stored(cluster, PODS, "one")) is not None)
        worker = cluster.kubelets.worker(stored(cluster, PODS, "one"))
        assert worker is not None
        attempt = worker.containers[0].current
        assert attempt is not None
        assert attempt.started_at == parse_time(started)
        assert attempt.container_id.startswith("containerd://")


@pytest.mark.parametrize(
    ("script", "lines", "end", "on_term"),
    [
        ("echo a; sleep 2; echo b; exit 4", [(0.0, "a"), (2.0, "b")], (2.0, 4), None),
        ("for i in x y; do echo $i; sleep 1; done", [(0.0, "x"), (1.0, "y")], (2.0, 0), None),
        ("trap 'exit 0' TERM; echo up; sleep 60 & wait", [(0.0, "up")], (60.0, 0), 0),
        ("if test a = a; then exit 3; else sleep 9; fi", [], (0.01, 3), None),
        ("if [ a != a ]; then exit 3; else sleep 9; fi; echo b", [(9.0, "b")], (9.0, 0), None),
        ("test a != a", [], (0.01, 1), None),
        ("echo out >&2 && echo err 1>&2; sleep 5", [(0.0, "out"), (0.0, "err")], (5.0, 0), None),
    ],
)
def test_simple_scripts_are_interpreted(
    script: str, lines: list[tuple[float, str]], end: tuple[float, int], on_term: int | None
) -> None:
    program = program_of(PodBehavior(), container("main", script), is_main=True)
    assert list(program.output(1000)) == lines
    assert program.end == end
    assert program.on_term == on_term


@pytest.mark.parametrize(
    "script", ["exec server --port 80", "echo $HOME", "curl -s x | sh", "if [ -f x ]; then :; fi"]
)
def test_other_scripts_are_servers(script: str) -> None:
    program = program_of(PodBehavior(), container("main", script), is_main=True)
    assert program.end is None
    assert program.on_term == 0


def test_an_endless_loop_repeats_its_lines() -> None:
    program = program_of(
        PodBehavior(), container("main", "while true; do echo t; sleep 2; done"), is_main=True
    )
    assert [offset for offset, _ in program.output(5)] == [0.0, 2.0, 4.0]
    assert program.next_output_after(4.0) == 6.0
    assert program.next_output_after(5.5) == 6.0
