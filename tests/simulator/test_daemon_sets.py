"""DaemonSets: as recorded, and by their documented rules."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import DAEMON_SETS, NODES, PODS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import (
    change,
    daemon_set,
    exists,
    is_ready,
    pods_of,
    poll_cluster,
    stored,
)
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_LIFE = "25-daemonset"


async def _remove_label(run: Replay) -> None:
    """Removes the label that was removed by hand from the recorded node."""
    node = copy_json(run.cluster.store.get(NODES, None, "node-0"))
    assert node is not None
    del node["metadata"]["labels"]["disk"]
    run.cluster.store.update(NODES, node, manager="test")


async def _learn_pod(run: Replay) -> None:
    """Learns the name of the pod that the recording deletes, which no earlier response has shown."""
    pod = run.cluster.store.list(PODS, "rec-ds")[0]
    run.substitutions.learn("agent-l4wql", pod["metadata"]["name"])


@virtual_time
async def test_a_daemon_sets_life_is_as_recorded() -> None:
    options = Options(
        varying=NODE_VALUES,
        names={"node-1": "node-0"},
        after={13: _learn_pod, 19: _remove_label},
        skip=frozenset({2}),
        racing=frozenset({8, 21, 23}),
        read_deadline_seconds=0.5,
        stream_deadline_seconds=0.5,
    )
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _LIFE, options)
    check(_LIFE, differences)


def _is_rolled(cluster: SimulatedCluster, nodes: int) -> bool:
    found = stored(cluster, DAEMON_SETS, "agent")
    status = found["status"]
    counts = (
        status.get("updatedNumberScheduled"),
        status.get("numberAvailable"),
        len(pods_of(cluster, "agent")),
    )
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts == (nodes,) * 3


@pytest.mark.parametrize(
    ("rolling", "least", "most"),
    [
        ({"maxUnavailable": 1, "maxSurge": 0}, 3, 4),
        ({"maxUnavailable": "50%", "maxSurge": 0}, 2, 4),
        ({"maxUnavailable": 0, "maxSurge": 1}, 4, 5),
        ({"maxUnavailable": 0, "maxSurge": "50%"}, 4, 6),
    ],
)
@virtual_time
async def test_a_rolling_update_keeps_within_its_limits(rolling: JsonObject, least: int, most: int) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    async with SimulatedCluster(nodes=4, speed=20) as cluster:
        cluster.store.create(DAEMON_SETS, daemon_set("agent", updateStrategy=strategy))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 4))
        nodes = {entry["spec"]["nodeName"] for entry in pods_of(cluster, "agent")}
        assert len(nodes) == 4
        counts: list[tuple[int, int]] = []

        def is_done() -> bool:
            pods = pods_of(cluster, "agent")
            counts.append((sum(map(is_ready, pods)), len(pods)))
            return _is_rolled(cluster, 4)

        change(cluster, DAEMON_SETS, "agent", image="busybox:2")
        await poll_cluster(cluster, is_done)
    assert min(ready for ready, _ in counts) == least
    assert max(count for _, count in counts) == most


@pytest.mark.parametrize(("effect", "left"), [("NoSchedule", 3), ("NoExecute", 2)])
@virtual_time
async def test_an_untolerated_taint_removes_a_pod_only_with_no_execute(effect: str, left: int) -> None:
    async with SimulatedCluster(nodes=3, speed=20) as cluster:
        cluster.store.create(DAEMON_SETS, daemon_set("agent"))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 3))
        node = copy_json(stored(cluster, NODES, "node-1"))
        node["spec"]["taints"] = [{"key": "gpu", "effect": effect}]
        cluster.store.update(NODES, node, manager="test")
        await poll_cluster(
            cluster, lambda: stored(cluster, DAEMON_SETS, "agent")["status"]["desiredNumberScheduled"] == 2
        )
        await poll_cluster(cluster, lambda: len(pods_of(cluster, "agent")) == left)


@virtual_time
async def test_orphaned_pods_are_adopted_by_a_daemon_set_with_their_labels() -> None:
    async with SimulatedCluster(nodes=2, speed=20) as cluster:
        cluster.store.create(DAEMON_SETS, daemon_set("agent"))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 2))
        names = {entry["metadata"]["name"] for entry in pods_of(cluster, "agent")}
        cluster.store.delete(DAEMON_SETS, "default", "agent", propagation_policy="Orphan")
        await poll_cluster(cluster, lambda: not exists(cluster, DAEMON_SETS, "agent"))
        cluster.store.create(DAEMON_SETS, daemon_set("agent"))
        await poll_cluster(cluster, lambda: _is_rolled(cluster, 2))
        assert {entry["metadata"]["name"] for entry in pods_of(cluster, "agent")} == names
