"""A node whose kubelet stops and starts again: as recorded, and the effect on a deployment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.nodes.node_objects import NodeShape
from pilothouse_simulator.values.resources import DEPLOYMENTS, NODES, PODS
from tests.simulator.recorded_cluster import NODE_VALUES, RECORDED_TIMINGS
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import NAMESPACE, deployment, pods_of, poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_LOST = "05-node-lost"
_NODE = "real-0"
_PODS_MADE, _FORCE_DELETED = 4, 11
_STOPPED_AFTER_SECONDS = 3.0
# Values of the recorded node, and the count of events, which includes earlier losses of that node.
_VARYING = NODE_VALUES | {"count"}


async def _goes_away(run: Replay) -> None:
    await run.cluster.clock.sleep(_STOPPED_AFTER_SECONDS)
    run.cluster.kubelets.stop(_NODE)


async def _comes_back(run: Replay) -> None:
    run.cluster.kubelets.start(_NODE)


@virtual_time
async def test_a_lost_node_is_as_recorded() -> None:
    shape = NodeShape(_NODE, "10.244.0.1", labels=(("type", "real"),))
    cluster = SimulatedCluster(speed=1.0, nodes=[shape])
    for kubelet in cluster.kubelets.by_node.values():
        kubelet.timings = replace(RECORDED_TIMINGS)
    async with cluster:
        differences = await replay(
            cluster,
            _LOST,
            Options(varying=_VARYING, after={_PODS_MADE: _goes_away, _FORCE_DELETED: _comes_back}),
        )
    check(_LOST, differences)


def _deleted(cluster: SimulatedCluster) -> list[str]:
    """Returns the uids of pods that are being deleted."""
    pods = cluster.store.list(PODS, NAMESPACE)
    return [pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" in pod["metadata"]]


def _nodes_of(cluster: SimulatedCluster) -> set[str]:
    return {pod["spec"].get("nodeName", "") for pod in pods_of(cluster, "web")}


@virtual_time
async def test_pods_of_a_lost_node_are_replaced_and_end_when_it_is_back() -> None:
    async with SimulatedCluster(nodes=2) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 4))

        def available(count: int) -> bool:
            found = cluster.store.get(DEPLOYMENTS, NAMESPACE, "web")
            return bool(found and found["status"].get("availableReplicas") == count)

        await poll_cluster(cluster, lambda: available(4))
        assert _nodes_of(cluster) == {"node-0", "node-1"}
        there = [pod for pod in pods_of(cluster, "web") if pod["spec"]["nodeName"] == "node-1"]
        cluster.kubelets.stop("node-1")
        await cluster.clock.sleep(40)
        assert available(4)
        await cluster.clock.sleep(20)
        assert available(4 - len(there))
        # The pods tolerate the lost node for five minutes. Then they are replaced and stay as Terminating.
        await cluster.clock.sleep(200)
        assert available(4 - len(there))
        await cluster.clock.sleep(120)
        assert available(4)
        assert sorted(_deleted(cluster)) == sorted(pod["metadata"]["uid"] for pod in there)
        assert _nodes_of(cluster) == {"node-0"}
        cluster.kubelets.start("node-1")
        await poll_cluster(cluster, lambda: not _deleted(cluster))

        def untainted() -> bool:
            node = cluster.store.get(NODES, None, "node-1")
            return node is not None and "taints" not in node["spec"]

        await poll_cluster(cluster, untainted)


@virtual_time
async def test_a_kubelet_that_is_back_in_time_is_not_noticed() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 1))
        await poll_cluster(cluster, lambda: bool(pods_of(cluster, "web")))
        cluster.kubelets.stop("node-0")
        # A pod is created and another one deleted while no kubelet runs.
        cluster.store.create(DEPLOYMENTS, deployment("late", 1))
        (pod,) = pods_of(cluster, "web")
        cluster.store.delete(PODS, NAMESPACE, pod["metadata"]["name"])
        await cluster.clock.sleep(30)
        assert {each["status"]["phase"] for each in pods_of(cluster, "late")} == {"Pending"}
        assert _deleted(cluster) == [pod["metadata"]["uid"]]
        cluster.kubelets.start("node-0")

        def all_run() -> bool:
            pods = [*pods_of(cluster, "web"), *pods_of(cluster, "late")]
            return not _deleted(cluster) and {each["status"]["phase"] for each in pods} == {"Running"}

        await poll_cluster(cluster, all_run)
        node = cluster.store.get(NODES, None, "node-0")
        assert node is not None
        assert {each["reason"] for each in node["status"]["conditions"] if each["type"] == "Ready"} == {
            "KubeletReady"
        }
