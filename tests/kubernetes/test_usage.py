"""Use of resources, from recorded summaries of a real kubelet."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from pilothouse_server.containers.model import ContainerSpec, InitContainer, Program, Resources
from pilothouse_server.kubernetes.usage import PodUsage, StatsSummary, usage_by_container
from pilothouse_server.reconcile.observe.container_observer import PodOwner
from pilothouse_server.reconcile.observe.usage import sample_of
from pilothouse_server.values.resources import NamespaceId
from tests.kubernetes import recorded
from tests.kubernetes.containers import container

NOW = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)


def summary() -> StatsSummary:
    body = recorded.exchanges("09-usage")[0]["response"]["body"]
    return msgspec.json.decode(json.dumps(body), type=StatsSummary)


def uids() -> dict[str, str]:
    return {pod.pod_ref.name: pod.pod_ref.uid for pod in summary().pods}


async def test_usage_equals_the_figures_of_the_kubelet() -> None:
    (usage,) = await usage_by_container([summary()], {uids()["talk"]: "web"}, NOW)
    assert (usage.key, usage.time, usage.pods) == ("web", NOW, 1)
    assert usage.memory_bytes == 249856
    assert usage.disk_bytes_used == 28672 + 4096
    assert usage.disk_bytes_total == 270553174016


async def test_pods_of_one_container_are_summed_over_nodes() -> None:
    pods = {uids()["talk"]: "web", uids()["pair"]: "web"}
    one = {usage.key: usage for usage in await usage_by_container([summary()], pods, NOW)}["web"]
    assert one.pods == 2
    assert one.memory_bytes == 249856 + 241664 + 245760
    two = (await usage_by_container([summary(), summary()], pods, NOW))[0]
    assert (two.pods, two.memory_bytes) == (4, 2 * one.memory_bytes)


async def test_nano_cores_are_converted_to_cores() -> None:
    body = {"pods": [{"podRef": {"uid": "u"}, "containers": [{"cpu": {"usageNanoCores": 250_000_000}}]}]}
    (usage,) = await usage_by_container([msgspec.convert(body, StatsSummary)], {"u": 1}, NOW)
    assert usage.cpu_cores == pytest.approx(0.25)
    assert usage.network_bytes_rx is None


@pytest.mark.parametrize("nano_cores", [10**400, -(10**400)], ids=["many", "below zero"])
async def test_impossible_numbers_of_cores_are_limited(nano_cores: int) -> None:
    """A cluster may send any number of digits, for which no share can be computed."""
    body = {"pods": [{"podRef": {"uid": "u"}, "containers": [{"cpu": {"usageNanoCores": nano_cores}}]}]}
    (usage,) = await usage_by_container(
        [msgspec.json.decode(json.dumps(body), type=StatsSummary)], {"u": 1}, NOW
    )
    assert usage.cpu_cores == pytest.approx(1e9 if nano_cores > 0 else -1e-9)


async def test_pods_without_a_known_container_are_left_out() -> None:
    assert await usage_by_container([summary()], {}, NOW) == []


async def test_programs_are_summed_separately_if_a_pod_has_several() -> None:
    pods = {uids()["talk"]: "talk", uids()["pair"]: "pair"}
    found = {usage.key: usage for usage in await usage_by_container([summary()], pods, NOW)}
    assert found["talk"].programs is None
    pair = found["pair"].programs
    assert pair is not None
    assert len(pair) == 2
    assert sum(memory for _, memory in pair.values()) == found["pair"].memory_bytes
    assert sum(cores for cores, _ in pair.values()) == pytest.approx(found["pair"].cpu_cores)
    both = await usage_by_container([summary(), summary()], {uids()["pair"]: "pair"}, NOW)
    assert both[0].programs == {name: (2 * cores, 2 * memory) for name, (cores, memory) in pair.items()}


def test_requests_and_limits_include_all_running_programs() -> None:
    whole = Resources(cpu_request="100m", cpu_limit="1", memory_limit="64Mi")
    beside = Resources(cpu_limit="500m", requests={"memory": "16Mi"})
    mesh = InitContainer("mesh", "a:1", resources=Resources(cpu_request="50m"), restart_policy="Always")
    done = InitContainer("done", "a:1", resources=Resources(cpu_request="9"))
    spec = ContainerSpec(sidecars=(Program("side", "a:1", resources=beside),))

    def bounds(spec: ContainerSpec) -> tuple[float | int | None, ...]:
        subject = container(resources=whole, spec=spec)
        owner = PodOwner(1, NamespaceId(1), subject.side_by_side, spec.pod_resources)
        sample = sample_of(PodUsage(owner, NOW, 2, 0.5, 1))
        return (
            sample.cpu_cores_request,
            sample.cpu_cores_limit,
            sample.memory_bytes_request,
            sample.memory_bytes_limit,
        )

    assert bounds(ContainerSpec()) == (0.2, 2.0, None, 2 * 64 << 20)
    # The sidecar has no memory limit, so the pod has none.
    assert bounds(spec) == (0.2, 3.0, 2 * 16 << 20, None)
    natives = msgspec.structs.replace(spec, init_containers=(mesh, done))
    assert bounds(natives)[0] == pytest.approx(0.3)
    of_pod = msgspec.structs.replace(natives, pod_resources=Resources(cpu_request="2", memory_limit="1Gi"))
    assert bounds(of_pod) == (4.0, None, 2 * 16 << 20, 2 << 30)
