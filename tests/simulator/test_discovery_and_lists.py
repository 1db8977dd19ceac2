"""Version, health, discovery, unknown paths, lists, paging and selectors, as recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.api.tables import build_table
from pilothouse_simulator.values.resources import REGISTRY
from tests.simulator.recordings import load
from tests.simulator.replay import Options, check, create, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_DISCOVERY = "01-version-and-discovery"
_LISTS = "04a-list-paging-and-selectors"
_WORKLOADS = "32-owned-and-listed"
# The replayed exchanges of the recording of lists: refused selectors, and the kinds of the two groups. Its other lists
# need objects that were created before the recording.
_REPLAYED = frozenset({3, 7, 8, 12, 13, 17, 18, 20, 21})
# The recorded tables by kind: the exchange of the table, and of the list of the same objects.
_TABLES = {"Job": (4, 0), "CronJob": (9, 5), "StatefulSet": (14, 10), "DaemonSet": (19, 15)}
_AGES = frozenset({"Age", "Last Schedule"})
_NAMESPACE = "/api/v1/namespaces/rec-list"


def _pod(name: str, **spec: Any) -> JsonObject:
    container = {"name": "main", "image": "busybox:1"}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def _prepare(cluster: SimulatedCluster) -> None:
    """Creates the objects from before the recording: seven ConfigMaps, a running pod and an unschedulable pod."""
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


@virtual_time
async def test_selectors_and_kinds_of_workloads_are_as_recorded() -> None:
    others = frozenset(range(len(load(_WORKLOADS)["exchanges"]))) - _REPLAYED
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster, _WORKLOADS, Options(skip=others, pace=False, read_deadline_seconds=0)
        )
    check(_WORKLOADS, differences)


@pytest.mark.parametrize("kind", list(_TABLES))
def test_tables_of_workloads_are_as_recorded(kind: str) -> None:
    exchanges = load(_WORKLOADS)["exchanges"]
    recorded, listed = (exchanges[number]["response"]["body"] for number in _TABLES[kind])
    resource = next(entry for entry in REGISTRY if entry.kind == kind)
    table = build_table(resource, listed["items"], datetime.now(UTC), with_columns=True)

    def columns(entries: list[JsonObject]) -> list[JsonObject]:
        return [{name: value for name, value in entry.items() if name != "description"} for entry in entries]

    assert columns(table["columnDefinitions"]) == columns(recorded["columnDefinitions"])
    names = [entry["name"] for entry in table["columnDefinitions"]]
    for row, other in zip(table["rows"], recorded["rows"], strict=False):
        for name, cell, recorded_cell in zip(names, row["cells"], other["cells"], strict=True):
            assert name in _AGES or cell == recorded_cell, name
