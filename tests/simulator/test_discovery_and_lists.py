"""Version, health, discovery, unknown paths, lists, paging and selectors, as recorded."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from tests.simulator.replay import Options, check, create, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_DISCOVERY = "01-version-and-discovery"
_LISTS = "04a-list-paging-and-selectors"
_NAMESPACE = "/api/v1/namespaces/rec-list"


def _pod(name: str, **spec: Any) -> JsonObject:
    container = {"name": "main", "image": "busybox:1"}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def _prepare(cluster: SimulatedCluster) -> None:
    """Makes the objects that existed before the recording: seven ConfigMaps, a running pod and one that fits no
    node.
    """
    for number in range(7):
        labels = {"n": str(number), "tier": "front" if number % 2 else "back"}
        if number == 3:
            labels["extra"] = "1"
        body = {"metadata": {"name": f"c{number}", "labels": labels}, "data": {"k": f"c{number}"}}
        await create(cluster, f"{_NAMESPACE}/configmaps", body)
    await create(cluster, f"{_NAMESPACE}/pods", _pod("nowhere", nodeSelector={"no": "such-node"}))
    await create(cluster, f"{_NAMESPACE}/pods", _pod("on-node", nodeName="node-0"))


@virtual_time
async def test_lists_are_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster,
            _LISTS,
            Options(names={"real-0": "node-0"}, varying=frozenset({"cells"})),
            prepare=_prepare,
        )
    check(_LISTS, differences)


@virtual_time
async def test_discovery_is_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster, _DISCOVERY, Options(names={"real-0": "node-0"}, pace=False, read_deadline_seconds=0)
        )
    check(_DISCOVERY, differences)
