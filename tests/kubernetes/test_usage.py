"""Use of resources, from the summaries that a real kubelet gave."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from pilothouse_server.kubernetes.usage import StatsSummary, usage_by_container
from tests.kubernetes import recorded

NOW = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)


def summary() -> StatsSummary:
    body = recorded.exchanges("09-usage")[0]["response"]["body"]
    return msgspec.json.decode(json.dumps(body), type=StatsSummary)


def uids() -> dict[str, str]:
    return {pod.pod_ref.name: pod.pod_ref.uid for pod in summary().pods}


async def test_the_figures_are_the_kubelets() -> None:
    (usage,) = await usage_by_container([summary()], {uids()["talk"]: "web"}, NOW)
    assert (usage.key, usage.time, usage.pods) == ("web", NOW, 1)
    assert usage.memory_bytes == 249856
    assert usage.disk_bytes_used == 28672 + 4096
    assert usage.disk_bytes_total == 270553174016


async def test_pods_of_one_container_are_added_over_nodes() -> None:
    pods = {uids()["talk"]: "web", uids()["pair"]: "web"}
    one = {usage.key: usage for usage in await usage_by_container([summary()], pods, NOW)}["web"]
    assert one.pods == 2
    assert one.memory_bytes == 249856 + 241664 + 245760
    two = (await usage_by_container([summary(), summary()], pods, NOW))[0]
    assert (two.pods, two.memory_bytes) == (4, 2 * one.memory_bytes)


async def test_cores_are_nano_cores() -> None:
    body = {"pods": [{"podRef": {"uid": "u"}, "containers": [{"cpu": {"usageNanoCores": 250_000_000}}]}]}
    (usage,) = await usage_by_container([msgspec.convert(body, StatsSummary)], {"u": 1}, NOW)
    assert usage.cpu_cores == pytest.approx(0.25)
    assert usage.network_bytes_rx is None


@pytest.mark.parametrize("nano_cores", [10**400, -(10**400)], ids=["many", "below zero"])
async def test_cores_that_nothing_has_are_some_number(nano_cores: int) -> None:
    """As a cluster may send any number of digits, of which no share can be told."""
    body = {"pods": [{"podRef": {"uid": "u"}, "containers": [{"cpu": {"usageNanoCores": nano_cores}}]}]}
    (usage,) = await usage_by_container(
        [msgspec.json.decode(json.dumps(body), type=StatsSummary)], {"u": 1}, NOW
    )
    assert usage.cpu_cores == pytest.approx(1e9 if nano_cores > 0 else -1e-9)


async def test_pods_of_nobody_are_left_out() -> None:
    assert await usage_by_container([summary()], {}, NOW) == []
