"""Containers that are DaemonSets: a pod on each matching node; stopped, held, restarted, grown and imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values.resources import DAEMON_SETS, NAMESPACES, NODES, PODS
from tests.harness import Server
from tests.main_job.legacy import Kubectl
from tests.waiting import poll_until

STOPPED = {"pilothouse.dev/no-node": "true"}


class Agents:
    """One namespace of a shared server, with containers that are DaemonSets."""

    def __init__(self, server: Server, namespace: str) -> None:
        self.server, self.namespace = server, namespace
        assert server.cluster is not None
        self.store = server.cluster.store
        self.containers = server.admin.containers
        self.nodes = sorted(each["metadata"]["name"] for each in self.store.list(NODES))

    async def make(self, replicas: int, **values: Any) -> pb.Container:
        settings = pb.DaemonSetSettings(**values.pop("settings", {}))
        wanted = pb.Container(name="agent", image="agent:1", daemon_set=settings, **values)
        await self.containers.create(namespace=self.namespace, container=wanted)
        return await self.until(lambda row: is_whole(row, replicas))

    async def change(self, container: pb.Container, *paths: str) -> pb.Container:
        changed: pb.Container = await self.containers.update(
            namespace=self.namespace,
            name="agent",
            container=container,
            update_mask=FieldMask(paths=paths),
        )
        return changed

    async def until(self, holds: Callable[[pb.Container], Any]) -> pb.Container:
        async def look() -> pb.Container:
            row: pb.Container = await self.containers.get(namespace=self.namespace, name="agent")
            return row

        return await poll_until(look, lambda row: row.observed_generation == row.generation and holds(row))

    async def until_stopped(self, status: pb.ContainerStatus.ValueType) -> None:
        await self.until(lambda row: row.status == status and not row.reason)

    def live(self) -> dict[str, Any]:
        found = self.store.get(DAEMON_SETS, self.namespace, "agent")
        assert found is not None
        return found

    async def until_live(self, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        async def look() -> dict[str, Any]:
            return self.live()

        return await poll_until(look, holds)

    async def until_pods(self, holds: Callable[[dict[str, tuple[str, str]]], Any]) -> None:
        async def look() -> dict[str, tuple[str, str]]:
            return self.pods()

        await poll_until(look, holds)

    def pods(self) -> dict[str, tuple[str, str]]:
        """Returns node and image of the pods that are not ending, by uid."""
        return {
            each["metadata"]["uid"]: (
                each["spec"].get("nodeName", ""),
                each["spec"]["containers"][0]["image"],
            )
            for each in self.store.list(PODS, self.namespace)
            if not each["metadata"].get("deletionTimestamp")
        }

    def label(self, node: str) -> None:
        found = self.store.get(NODES, None, node)
        assert found is not None
        labels = {**found["metadata"].get("labels", {}), self.namespace: "yes"}
        self.store.update(NODES, {**found, "metadata": {**found["metadata"], "labels": labels}})


def is_whole(row: pb.Container, nodes: int) -> bool:
    running = row.status == pb.CONTAINER_STATUS_RUNNING
    return running and row.replicas == row.ready_replicas == nodes


@pytest.fixture
async def agents(shared_server: Server, request: pytest.FixtureRequest) -> Agents:
    namespace = f"agents-{abs(hash(request.node.name)) % 10**8}"
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
    found = Agents(shared_server, namespace)

    async def is_there() -> bool:
        return found.store.get(NAMESPACES, None, namespace) is not None

    await poll_until(is_there)
    return found


async def test_a_daemon_set_runs_on_each_node_and_a_selector_stops_it(
    agents: Agents,
) -> None:
    own = {"kubernetes.io/os": "linux"}
    for node in agents.store.list(NODES):
        assert own.items() <= node["metadata"]["labels"].items()
    made = await agents.make(len(agents.nodes), node_selector=own)
    assert made.workload_kind == pb.WORKLOAD_KIND_DAEMON_SET
    assert sorted(node for node, _ in agents.pods().values()) == agents.nodes
    row = made
    for leave, enter, status in (
        (agents.containers.stop, agents.containers.start, pb.CONTAINER_STATUS_STOPPED),
        (agents.containers.pause, agents.containers.resume, pb.CONTAINER_STATUS_PAUSED),
    ):
        await leave(namespace=agents.namespace, name="agent")
        await agents.until_stopped(status)
        assert agents.pods() == {}
        assert agents.live()["spec"]["template"]["spec"]["nodeSelector"] == own | STOPPED
        await enter(namespace=agents.namespace, name="agent")
        row = await agents.until(lambda row: is_whole(row, len(agents.nodes)))
        assert agents.live()["spec"]["template"]["spec"]["nodeSelector"] == own
        assert row.node_selector == own
    drifted = next(each for each in row.conditions if each.type == "Drifted")
    assert (drifted.status, drifted.reason) == (2, "InSync"), drifted.message


async def test_a_held_rollout_keeps_the_pods_and_resume_restores_the_strategy(agents: Agents) -> None:
    nodes = len(agents.nodes)
    await agents.make(nodes, settings={"max_surge": "1"})
    rolling = agents.live()["spec"]["updateStrategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    before = agents.pods()
    await agents.containers.pause(namespace=agents.namespace, name="agent", mode=pb.PAUSE_MODE_HOLD_ROLLOUT)
    await agents.until_live(lambda each: each["spec"]["updateStrategy"]["type"] == "OnDelete")
    await agents.change(pb.Container(image="agent:2"), "image")
    row = await agents.until(lambda row: row.reason == "RolloutHeld")
    assert agents.pods() == before
    assert row.status == pb.CONTAINER_STATUS_RUNNING
    await agents.containers.resume(namespace=agents.namespace, name="agent")
    await agents.until_live(lambda each: each["spec"]["updateStrategy"] == rolling)
    await agents.until_pods(
        lambda pods: len(pods) == nodes and all(image.endswith("agent:2") for _, image in pods.values())
    )
    await agents.until(
        lambda row: any(each.type == "RolledOut" and each.status == 1 for each in row.conditions)
    )
    renewed = agents.pods()
    await agents.containers.restart(namespace=agents.namespace, name="agent")
    await agents.until_pods(lambda pods: len(pods) == nodes and not pods.keys() & renewed.keys())
    await agents.until(lambda row: is_whole(row, nodes) and not row.reason)


async def test_replicas_and_quota_usage_follow_the_nodes(agents: Agents) -> None:
    chosen = {agents.namespace: "yes"}
    wanted = pb.Container(
        name="agent",
        image="agent:1",
        daemon_set=pb.DaemonSetSettings(),
        node_selector=chosen,
        resources=pb.Resources(cpu_request="100m"),
    )
    await agents.containers.create(namespace=agents.namespace, container=wanted)
    row = await agents.until(lambda row: row.reason == "NoNode")
    assert (row.status, row.replicas) == (pb.CONTAINER_STATUS_PENDING, 1)
    agents.label(agents.nodes[0])
    await agents.until(lambda row: is_whole(row, 1))
    agents.label(agents.nodes[1])
    row = await agents.until(lambda row: is_whole(row, 2))
    grew = next(each for each in row.conditions if each.type == "Grew")
    assert grew.message == "pods on 2 nodes count against the quota, in place of 1"
    counted = await agents.server.admin.namespaces.get_quota_usage(name=agents.namespace)
    assert "200" in str(counted)
    with pytest.raises(PilothouseError) as refused:
        await agents.change(pb.Container(replicas=3), "replicas")
    assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "container.replicas: must be unset for a DaemonSet" in refused.value.message


async def test_the_message_names_the_node_of_a_pod_that_is_not_ready(agents: Agents) -> None:
    wanted = pb.Container(name="agent", image="registry.invalid/agent:1", daemon_set=pb.DaemonSetSettings())
    await agents.containers.create(namespace=agents.namespace, container=wanted)
    row = await agents.until(lambda row: row.reason in ("ErrImagePull", "ImagePullBackOff"))
    assert row.message.startswith(f"ready on 0 of {len(agents.nodes)} nodes; pod agent-")
    assert any(f" on node {node}: " in row.message for node in agents.nodes)


async def test_an_import_takes_a_daemon_set_over_without_a_restart(agents: Agents) -> None:
    template = {
        "metadata": {"labels": {"app": "agent"}},
        "spec": {"containers": [{"name": "agent", "image": "agent:1"}]},
    }
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template}
    where = f"/apis/apps/v1/namespaces/{agents.namespace}/daemonsets"
    await Kubectl(agents.server).ask("POST", where, {"metadata": {"name": "agent"}, "spec": spec})
    await agents.until_live(lambda each: each.get("status", {}).get("numberReady") == len(agents.nodes))
    before = agents.pods()
    answer = await agents.containers.import_(namespace=agents.namespace, kinds=[pb.WORKLOAD_KIND_DAEMON_SET])
    (result,) = answer.results
    assert (list(result.problems), list(result.notes)) == ([], [])
    assert (result.kind, result.container.replicas) == (pb.WORKLOAD_KIND_DAEMON_SET, len(agents.nodes))
    await agents.until(lambda row: is_whole(row, len(agents.nodes)))
    assert agents.pods() == before


@pytest.mark.parametrize(
    ("settings", "strategy"),
    [
        (
            {"update_strategy": "RollingUpdate", "max_unavailable": "25%", "max_surge": "0"},
            {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 0}},
        ),
        ({"update_strategy": "OnDelete"}, {"type": "OnDelete"}),
    ],
)
async def test_each_setting_reaches_the_cluster_and_is_shown(
    agents: Agents, settings: dict[str, Any], strategy: dict[str, Any]
) -> None:
    settings |= {"min_ready_seconds": 1, "revision_history_limit": 3}
    row = await agents.make(len(agents.nodes), settings=settings)
    assert row.daemon_set == pb.DaemonSetSettings(**settings)
    spec = agents.live()["spec"]
    assert (spec["updateStrategy"], spec["minReadySeconds"], spec["revisionHistoryLimit"]) == (strategy, 1, 3)


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ({"replicas": 2}, {}, "container.replicas: must be unset for a DaemonSet"),
        (
            {},
            {"update_strategy": "OnDelete", "max_surge": "1"},
            "container.daemon_set.max_surge: is only allowed with update_strategy RollingUpdate",
        ),
        (
            {},
            {"max_unavailable": "0"},
            "container.daemon_set.max_unavailable: must not be 0 if max_surge is 0, too",
        ),
        (
            {},
            {"max_unavailable": "1", "max_surge": "1"},
            "container.daemon_set.max_surge: must be 0 unless max_unavailable is 0 or unset",
        ),
    ],
)
async def test_settings_that_kubernetes_refuses_are_refused(
    agents: Agents, values: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    wanted = pb.Container(
        name="agent", image="agent:1", daemon_set=pb.DaemonSetSettings(**settings), **values
    )
    with pytest.raises(PilothouseError) as refused:
        await agents.containers.create(namespace=agents.namespace, container=wanted)
    assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert expected in refused.value.message
