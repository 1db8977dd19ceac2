"""Usage: kubelet reports in the recorded shape, counters that fit the levels, and limits."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.nodes.pod_usage import Level
from pilothouse_simulator.nodes.stats import UsageReporter
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.resources import PODS
from tests.simulator.recorded_cluster import recorded_cluster
from tests.simulator.recordings import load
from tests.simulator.replay import Options, check, replay
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_USAGE = "09-usage"
_ANNOTATION = "simulate.pilothouse.dev/"
# Usage reports are compared below by their shape. The responses of a fake node come from its own program.
_SHAPES, _FAKE_NODE = frozenset({0, 1, 2, 3}), frozenset({4, 5})


async def _get(cluster: SimulatedCluster, path: str, **query: str) -> str:
    headers = {"authorization": f"Bearer {cluster.token}"}
    async with (
        aiohttp.ClientSession(cluster.url, headers=headers) as session,
        session.get(path, params=query) as response,
    ):
        assert response.status == 200
        return await response.text()


def _run(cluster: SimulatedCluster, name: str, *, containers: int = 1, resources: JsonObject | None = None,
         **annotations: str) -> None:  # fmt: skip
    marks = {_ANNOTATION + key.replace("_", "-"): value for key, value in annotations.items()}
    names = ["main", "second"][:containers]
    spec = {"containers": [
        {"name": entry, "image": "busybox:1", "resources": resources or {}} for entry in names
    ]}  # fmt: skip
    metadata = {"name": name, "namespace": "default", "annotations": marks}
    cluster.store.create(PODS, {"metadata": metadata, "spec": spec})


def _is_running(cluster: SimulatedCluster, name: str) -> bool:
    pod = cluster.store.get(PODS, "default", name)
    return pod is not None and pod["status"]["phase"] == "Running"


def _shape(value: Any) -> Any:
    """Returns keys and types; for a list the shape of its first item."""
    if isinstance(value, dict):
        return {key: _shape(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_shape(child) for child in value[:1]]
    return "number" if isinstance(value, int | float) else type(value).__name__


def _pod_report(summary: JsonObject, name: str) -> JsonObject:
    report: JsonObject = next(pod for pod in summary["pods"] if pod["podRef"]["name"] == name)
    return report


@virtual_time
async def test_refusals_around_usage_are_as_recorded() -> None:
    async with recorded_cluster(20) as cluster:
        cluster.users.add("seen", "viewer", [])
        differences = await replay(
            cluster,
            _USAGE,
            Options(
                skip=_SHAPES | _FAKE_NODE,
                names={"real-0": "node-0"},
                identities={"user viewer (no rights unless bound)": "Bearer seen"},
                pace=False,
            ),
        )
    check(_USAGE, differences)


@pytest.mark.parametrize(("exchange", "query"), [(0, {}), (1, {"only_cpu_and_memory": "true"})])
@virtual_time
async def test_the_summary_has_the_recorded_shape(exchange: int, query: dict[str, str]) -> None:
    recorded = load(_USAGE)["exchanges"][exchange]["response"]["body"]
    async with recorded_cluster(20) as cluster:
        _run(cluster, "burn")
        _run(cluster, "pair", containers=2)
        await poll_cluster(cluster, lambda: _is_running(cluster, "burn") and _is_running(cluster, "pair"))
        summary = json.loads(await _get(cluster, "/api/v1/nodes/node-0/proxy/stats/summary", **query))
    assert _shape(summary["node"]) == _shape(recorded["node"])
    for name in ("burn", "pair"):
        simulated, real = _pod_report(summary, name), _pod_report(recorded, name)
        assert _shape(simulated) == _shape(real)
        assert [entry["name"] for entry in simulated["containers"]] == [
            entry["name"] for entry in real["containers"]
        ]


@pytest.mark.parametrize("exchange", [2, 3])
@virtual_time
async def test_the_metrics_have_the_recorded_shape(exchange: int) -> None:
    recorded = load(_USAGE)["exchanges"][exchange]["response"]["text"]
    async with recorded_cluster(20) as cluster:
        _run(cluster, "burn")
        _run(cluster, "pair", containers=2)
        await poll_cluster(cluster, lambda: _is_running(cluster, "burn") and _is_running(cluster, "pair"))
        text = await _get(cluster, "/api/v1/nodes/node-0/proxy/metrics/resource")

    def shape(exposition: str) -> list[tuple[Any, ...]]:
        return [
            (family.name, family.type, sorted(family.samples[0].labels), family.samples[0].timestamp is None)
            for family in text_string_to_metric_families(exposition)
        ]

    assert shape(text) == shape(recorded)
    names = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert names == [line.split(" ")[2] for line in recorded.splitlines() if line.startswith("# TYPE")]


@virtual_time
async def test_counters_grow_by_the_level_of_the_annotation() -> None:
    async with SimulatedCluster(nodes=1, speed=60) as cluster:
        _run(cluster, "busy", cpu="250m", memory="64Mi", resources={"limits": {"memory": "128Mi"}})
        await poll_cluster(cluster, lambda: _is_running(cluster, "busy"))
        usage = UsageReporter(cluster.kubelets)
        first = _pod_report(usage.stats_summary("node-0"), "busy")["containers"][0]
        assert first["cpu"]["usageNanoCores"] == 0
        await cluster.clock.sleep(40)
        second = _pod_report(usage.stats_summary("node-0"), "busy")["containers"][0]
    seconds = (parse_time(second["cpu"]["time"]) - parse_time(first["cpu"]["time"])).total_seconds()
    used = (second["cpu"]["usageCoreNanoSeconds"] - first["cpu"]["usageCoreNanoSeconds"]) / 1e9
    assert seconds >= 30
    assert used == pytest.approx(0.25 * seconds, rel=0.01)
    assert second["cpu"]["usageNanoCores"] == pytest.approx(250_000_000, rel=0.01)
    assert second["memory"]["workingSetBytes"] == 64 * 2**20
    assert second["memory"]["availableBytes"] == 64 * 2**20


@virtual_time
async def test_usage_stays_within_limits() -> None:
    async with SimulatedCluster(nodes=1, speed=60) as cluster:
        _run(cluster, "greedy", cpu="4", resources={"limits": {"cpu": "500m", "memory": "32Mi"}})
        await poll_cluster(cluster, lambda: _is_running(cluster, "greedy"))
        await cluster.clock.sleep(30)
        report = _pod_report(UsageReporter(cluster.kubelets).stats_summary("node-0"), "greedy")
    assert report["cpu"]["usageNanoCores"] <= 500_000_000
    assert report["memory"]["workingSetBytes"] <= 32 * 2**20


@virtual_time
async def test_memory_above_the_limit_ends_in_an_oom_kill() -> None:
    async with SimulatedCluster(nodes=1, speed=20) as cluster:
        _run(cluster, "hungry", memory="64Mi", resources={"limits": {"memory": "32Mi"}})

        def last_reason() -> str:
            pod = cluster.store.get(PODS, "default", "hungry")
            statuses = (pod or {}).get("status", {}).get("containerStatuses") or [{}]
            reason = statuses[0].get("lastState", {}).get("terminated", {}).get("reason", "")
            return str(reason)

        await poll_cluster(cluster, lambda: last_reason() == "OOMKilled")


@virtual_time
async def test_the_node_counter_includes_removed_pods() -> None:
    async with SimulatedCluster(nodes=1, speed=60) as cluster:
        _run(cluster, "gone", cpu="8")
        await poll_cluster(cluster, lambda: _is_running(cluster, "gone"))
        await cluster.clock.sleep(30)
        usage = UsageReporter(cluster.kubelets)
        before = usage.stats_summary("node-0")["node"]["cpu"]["usageCoreNanoSeconds"]
        cluster.store.delete(PODS, "default", "gone", grace_period_seconds=0)
        await poll_cluster(cluster, lambda: not cluster.kubelets.by_node["node-0"].workers)
        summary = usage.stats_summary("node-0")
    assert before > 100e9
    assert summary["node"]["cpu"]["usageCoreNanoSeconds"] >= before
    assert summary["pods"] == []


@given(
    cores=st.floats(0, 64),
    phase=st.floats(0, 6.3),
    times=st.lists(st.floats(0, 1e6), min_size=2, max_size=20),
)
def test_counters_never_decrease_and_stay_within_the_swing(
    cores: float, phase: float, times: list[float]
) -> None:
    level = Level(cores, 0.25, phase, 0, 0)
    times.sort()
    used = [level.core_seconds(time) for time in times]
    for before, after, begin, end in zip(used, used[1:], times, times[1:], strict=False):
        assert after >= before - 1e-6
        assert after - before <= cores * 1.25 * (end - begin) + 1e-4
