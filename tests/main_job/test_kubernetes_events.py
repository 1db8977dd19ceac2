"""Kubernetes Events of a container and of a volume: with `get`, in the history, by the API and by the command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import Shell, logged_in
from tests.waiting import poll_until

pytestmark = pytest.mark.full

WHERE = ("--namespace", "shop")
BEHAVIOR = "simulate.pilothouse.dev/behavior"


async def given(server: Server, tmp_path: Path) -> Shell:
    shell = await logged_in(server, tmp_path)
    await shell.succeed("namespaces", "create", "shop")
    return shell


async def create(server: Server, **fields: Any) -> pb.Container:
    wanted = pb.Container(**{"name": "web", "image": "nginx:1.27", **fields})
    return await server.admin.containers.create(namespace="shop", container=wanted)


async def get(server: Server) -> pb.GetContainerResponse:
    request = pb.GetContainerRequest(namespace="shop", name="web", include_events=True)
    return await server.admin.containers.get.send(request)


async def history(server: Server, name: str = "web") -> list[pb.StatusChange]:
    changes = server.admin.containers.list_status_history(namespace="shop", name=name)
    return [change async for change in changes]


def told(server: Server, reason: str, name: str = "web") -> Callable[[], Awaitable[list[pb.StatusChange]]]:
    """Returns a function that reads the history lines with this reason."""

    async def lines() -> list[pb.StatusChange]:
        return [change for change in await history(server, name) if change.reason == reason]

    return lines


def shown(server: Server, reason: str) -> Callable[[], Awaitable[resource_pb2.KubernetesEvent | None]]:
    """Returns a function that reads the newest event with this reason."""

    async def event() -> resource_pb2.KubernetesEvent | None:
        answer = await get(server)
        assert answer.container.name == "web"
        assert not answer.events_unavailable
        assert len(answer.events) <= 20
        times = [each.last_time.ToNanoseconds() for each in answer.events]
        assert times == sorted(times, reverse=True)
        return next((each for each in answer.events if each.reason == reason), None)

    return event


def deployment(server: Server) -> dict[str, Any]:
    assert server.cluster is not None
    found = server.cluster.store.get(resources.DEPLOYMENTS, "shop", "web")
    assert found is not None
    return found


def mount_what_is_not_there(server: Server) -> None:
    """Makes the pods mount a secret that does not exist, as another client."""
    assert server.cluster is not None
    found = deployment(server)
    template = found["spec"]["template"]
    spec = {**template["spec"], "volumes": [{"name": "keys", "secret": {"secretName": "absent"}}]}
    changed = {**found, "spec": {**found["spec"], "template": {**template, "spec": spec}}}
    server.cluster.store.update(resources.DEPLOYMENTS, changed, manager="somebody")


def waiting_pod(server: Server) -> dict[str, Any]:
    assert server.cluster is not None
    return next(
        pod
        for pod in server.cluster.store.list(resources.PODS, "shop")
        if pod["status"]["phase"] == "Pending" and pod["spec"].get("nodeName")
    )


async def test_a_pod_that_finds_no_node_is_reported(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    await create(server, annotations={BEHAVIOR: "unschedulable"})
    event = await poll_until(shown(server, "FailedScheduling"))
    assert event is not None
    assert (event.type, event.object_kind, event.count) == ("Warning", "Pod", 1)
    assert "nodes are available" in event.message
    (line,) = await poll_until(told(server, "FailedScheduling"))
    assert (line.previous_status, line.current_status) == (pb.CONTAINER_STATUS_PENDING,) * 2
    assert line.message == f"Pod {event.object_name}: {event.message}"
    assert line.triggered_by == "kubernetes"
    (state,) = await told(server, "Unschedulable")()
    assert "nodes are available" in state.message
    answer = await get(server)
    assert {each.object_kind for each in answer.events} == {"Deployment", "ReplicaSet", "Pod"}
    # A caller that does not request events gets none.
    plain = await server.admin.containers.get.send(pb.GetContainerRequest(namespace="shop", name="web"))
    assert not plain.events
    table = await shell.succeed("containers", "get", "web", *WHERE)
    assert "FailedScheduling" in table
    assert f"Pod/{event.object_name}" in table
    data = await shell.read("containers", "get", "web", *WHERE)
    assert data["name"] == "web"
    assert "FailedScheduling" in {each["reason"] for each in data["events"]}
    assert data["events_unavailable"] == ""
    # YAML is for files from which a container is made again, so it has no events.
    assert "events:" not in await shell.succeed("containers", "get", "web", *WHERE, "-o", "yaml")
    assert "FailedScheduling" in await shell.succeed("containers", "history", "web", *WHERE)


async def test_failed_mounts_and_attachments_are_reported(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    await shell.succeed(
        *("containers", "create", "web", *WHERE, "--image", "nginx:1.27", "--wait", "--stable-for", "0.3"),
        # Under another policy the change by others would be reverted.
        *("--drift-policy", "report"),
    )
    mount_what_is_not_there(server)
    (line,) = await poll_until(told(server, "FailedMount"))
    assert 'secret "absent" not found' in line.message
    assert line.current_status == pb.CONTAINER_STATUS_RUNNING
    event = await poll_until(shown(server, "FailedMount"))
    assert event is not None

    # The kubelet repeats the event, which adds no further line.
    async def repeated() -> bool:
        again = await shown(server, "FailedMount")()
        return again is not None and again.count > event.count

    await poll_until(repeated)
    assert len(await told(server, "FailedMount")()) == 1
    assert server.cluster is not None
    EventRecorder(server.cluster.store, server.cluster.clock).record(
        resources.PODS,
        waiting_pod(server),
        "FailedAttachVolume",
        'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) web-1',
        component="attachdetach-controller",
        warning=True,
    )
    (line,) = await poll_until(told(server, "FailedAttachVolume"), seconds=30.0)
    assert "Multi-Attach error" in line.message
    container = (await get(server)).container
    assert container.reason == "FailedAttachVolume"
    attachable = next(each for each in container.conditions if each.type == "VolumesAttachable")
    assert attachable.status == resource_pb2.CONDITION_STATUS_FALSE
    assert "Multi-Attach error" in attachable.message


async def test_pods_refused_by_a_quota_are_reported(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    assert server.cluster is not None

    async def there() -> bool:
        assert server.cluster is not None
        return server.cluster.store.get(resources.NAMESPACES, None, "shop") is not None

    await create(server, name="first")
    await poll_until(there)
    quota = {"metadata": {"name": "none", "namespace": "shop"}, "spec": {"hard": {"pods": "0"}}}
    server.cluster.store.create(resources.RESOURCE_QUOTAS, quota)
    await create(server)
    event = await poll_until(shown(server, "FailedCreate"))
    assert event is not None
    assert event.object_kind == "ReplicaSet"
    assert "exceeded quota" in event.message
    (line,) = await poll_until(told(server, "FailedCreate"))
    assert line.current_status == pb.CONTAINER_STATUS_FAILED
    assert "exceeded quota" in line.message
    assert "exceeded quota" in await shell.succeed("containers", "get", "web", *WHERE)


async def test_failed_probes_and_crashes_are_reported(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    await create(
        server,
        annotations={BEHAVIOR: "readiness-failing"},
        probes=pb.Probes(readiness=pb.Probe(period_seconds=1, exec=pb.ExecAction(command=["true"]))),
    )
    (line,) = await poll_until(told(server, "Unhealthy"))
    assert "Readiness probe failed" in line.message
    assert (await get(server)).container.reason == "Unhealthy"
    await create(server, name="other", annotations={BEHAVIOR: "crash-loop"})

    await poll_until(told(server, "BackOff", "other"))
    lines = await shell.read("containers", "history", "other", *WHERE)
    (back_off,) = (each for each in lines if each["reason"] == "BackOff")
    assert "Back-off restarting failed container" in back_off["message"]
    liveness = pb.Probe(period_seconds=1, failure_threshold=1, exec=pb.ExecAction(command=["false"]))
    await create(server, name="dead", probes=pb.Probes(liveness=liveness))

    (unhealthy,) = await poll_until(told(server, "Unhealthy", "dead"))
    assert "Liveness probe failed" in unhealthy.message


async def test_crashes_are_reported_for_every_kind_of_workload(server: Server, tmp_path: Path) -> None:
    await given(server, tmp_path)
    crashing: dict[str, Any] = {"annotations": {BEHAVIOR: "crash-loop"}}
    headless = pb.Port(container_port=80, service_type=pb.SERVICE_TYPE_HEADLESS)
    kinds: dict[str, dict[str, Any]] = {
        "agent": {"daemon_set": pb.DaemonSetSettings()},
        "data": {"stateful_set": pb.StatefulSetSettings(), "ports": [headless]},
        "once": {"job": pb.JobSettings(backoff_limit=0)},
    }
    for name, settings in kinds.items():
        await create(server, name=name, **crashing, **settings)
    statuses = dict.fromkeys(("agent", "data"), pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF)

    async def seen() -> dict[str, pb.Container]:
        return {each.name: each async for each in server.admin.containers.list(namespace="shop")}

    def all_told(found: dict[str, pb.Container]) -> bool:
        return all(found[name].status == status for name, status in statuses.items())

    rows = await poll_until(seen, all_told)
    assert {name: rows[name].reason for name in statuses} == dict.fromkeys(statuses, "CrashLoopBackOff")
    assert all(rows[name].restart_count for name in statuses)
    failed = await poll_until(seen, lambda found: found["once"].status == pb.CONTAINER_STATUS_FAILED)
    assert failed["once"].reason == "BackoffLimitExceeded"


async def test_an_unreachable_cluster_is_no_error(server: Server, tmp_path: Path) -> None:
    shell = await given(server, tmp_path)
    await shell.succeed(
        "containers", "create", "web", *WHERE, "--image", "nginx:1.27", "--wait", "--stable-for", "0.3"
    )
    await shell.succeed("volumes", "create", "files", *WHERE, "--size", "1Gi", "--storage-class", "standard")
    assert server.cluster is not None
    server.cluster.faults.refuse_connections = True
    answer = await get(server)
    assert answer.container.name == "web"
    assert not answer.events
    assert 'cluster "local" is not available' in answer.events_unavailable
    outcome = await shell.run("containers", "get", "web", *WHERE)
    assert outcome.code == 0
    assert outcome.output.splitlines()[1].startswith("web")
    assert 'no events: cluster "local" is not available' in outcome.errors
    data = await shell.read("volumes", "get", "files", *WHERE)
    assert data["events"] == []
    assert "is not available" in data["events_unavailable"]


async def test_claim_events_and_several_replicas_of_a_claim_are_reported(
    server: Server, tmp_path: Path
) -> None:
    shell = await given(server, tmp_path)
    await shell.succeed("volumes", "create", "data", *WHERE, "--size", "1Gi", "--storage-class", "missing")
    request = storage_pb2.GetVolumeRequest(namespace="shop", name="data", include_events=True)

    async def failing() -> list[resource_pb2.KubernetesEvent]:
        answer = await server.admin.storage.get_volume.send(request)
        return [each for each in answer.events if each.reason == "ProvisioningFailed"]

    (event, *_) = await poll_until(failing)
    assert (event.object_kind, event.object_name) == ("PersistentVolumeClaim", "data")
    assert "ProvisioningFailed" in await shell.succeed("volumes", "get", "data", *WHERE)
    created = await create(server, replicas=3, volume_mounts=[pb.VolumeMount(volume="data", mount_path="/d")])
    (attachable,) = [each for each in created.conditions if each.type == "VolumesAttachable"]
    assert attachable.status == resource_pb2.CONDITION_STATUS_UNKNOWN
    assert attachable.reason == "ReadWriteOnce"
    outcome = await shell.run("containers", "update", "web", *WHERE, "--replicas", "2")
    assert 'web: ReadWriteOnce: volume "data" is READ_WRITE_ONCE' in outcome.errors
    await create(server, name="other", replicas=2)
    outcome = await shell.run("volumes", "attach", "data", "other", *WHERE, "--mount-path", "/d")
    assert outcome.code == 0
    assert "other: ReadWriteOnce" in outcome.errors
    outcome = await shell.run("containers", "update", "web", *WHERE, "--replicas", "1")
    assert "ReadWriteOnce" not in outcome.errors
