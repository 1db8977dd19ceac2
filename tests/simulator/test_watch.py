"""Watches, as recorded, and unrecorded cases: a compacted history, dropped watches."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CONFIG_MAPS
from tests.simulator.replay import Options, Replay, check, create, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_WATCH = "04b-watch"
_EXPIRED = "04c-expired-410"


async def _prepare(cluster: SimulatedCluster) -> None:
    for name in ("c0", "c1"):
        body = {"metadata": {"name": name, "labels": {"color": "red"}}, "data": {"k": name}}
        await create(cluster, "/api/v1/namespaces/rec-watch/configmaps", body)


@virtual_time
async def test_watches_are_as_recorded() -> None:
    async with SimulatedCluster(speed=6) as cluster:
        differences = await replay(cluster, _WATCH, Options(exact_streams=True), prepare=_prepare)
    check(_WATCH, differences)


async def _six_config_maps(cluster: SimulatedCluster) -> None:
    for number in range(6):
        body = {"metadata": {"name": f"c{number}", "labels": {"n": "1"}}, "data": {"k": f"c{number}"}}
        await create(cluster, "/api/v1/namespaces/rec-gone/configmaps", body)


async def _change_and_compact(run: Replay) -> None:
    """Repeats the events between the first pages: three changes, and a compaction of older versions.

    The real server still served recent versions from its caches, so they are not compacted here.
    """
    store = run.cluster.store
    first = int(run.answers[0]["metadata"]["resourceVersion"])
    for number in range(3):
        config_map = copy_json(store.get(CONFIG_MAPS, "rec-gone", "c0"))
        assert config_map is not None
        config_map["data"]["k"] = str(number)
        store.update(CONFIG_MAPS, config_map)
    store.history.compact(first - 1)


@virtual_time
async def test_expired_versions_are_as_recorded() -> None:
    async with SimulatedCluster(speed=60) as cluster:
        differences = await replay(
            cluster,
            _EXPIRED,
            Options(after={0: _change_and_compact}, exact_streams=True, varying=frozenset({"k"})),
            prepare=_six_config_maps,
        )
    check(_EXPIRED, differences)


@virtual_time
async def test_a_watch_from_a_compacted_version_ends_with_expired() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        headers = {"authorization": f"Bearer {cluster.token}"}
        path = "/api/v1/namespaces/default/configmaps"
        await create(cluster, path, {"metadata": {"name": "a"}})
        start = cluster.store.revision
        await create(cluster, path, {"metadata": {"name": "b"}})
        cluster.store.history.compact(cluster.store.revision)
        async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
            query = {"watch": "true", "resourceVersion": str(start)}
            async with session.get(path, params=query) as response:
                assert response.status == 200
                lines = [json.loads(line) async for line in response.content]
            exact = {"resourceVersion": str(start), "resourceVersionMatch": "Exact"}
            async with session.get(path, params=exact) as response:
                assert response.status == 410
                assert (await response.json())["reason"] == "Expired"
    assert [line["type"] for line in lines] == ["ERROR"]
    assert lines[0]["object"]["code"] == 410
    assert lines[0]["object"]["reason"] == "Expired"


@virtual_time
async def test_a_continue_token_of_a_compacted_version_offers_another_one() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        headers = {"authorization": f"Bearer {cluster.token}"}
        path = "/api/v1/namespaces/default/configmaps"
        for name in ("a", "b", "c"):
            await create(cluster, path, {"metadata": {"name": name}})
        async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
            async with session.get(path, params={"limit": "1"}) as response:
                token = (await response.json())["metadata"]["continue"]
            await create(cluster, path, {"metadata": {"name": "d"}})
            cluster.store.history.compact(cluster.store.revision)
            async with session.get(path, params={"limit": "10", "continue": token}) as response:
                assert response.status == 410
                refusal = await response.json()
            query = {"limit": "10", "continue": refusal["metadata"]["continue"]}
            async with session.get(path, params=query) as response:
                rest = await response.json()
    assert refusal["reason"] == "Expired"
    assert {"b", "c", "d"} <= {item["metadata"]["name"] for item in rest["items"]}


@virtual_time
async def test_dropped_watches_break_off_in_the_middle() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        headers = {"authorization": f"Bearer {cluster.token}"}
        path = "/api/v1/namespaces/default/configmaps"
        async with (
            aiohttp.ClientSession(cluster.url, headers=headers) as session,
            session.get(path, params={"watch": "true"}) as response,
        ):
            await create(cluster, path, {"metadata": {"name": "a"}})
            assert json.loads(await response.content.readline())["type"] == "ADDED"
            cluster.faults.drop_watches()
            broken = False
            try:
                while await response.content.readline():
                    pass
            except aiohttp.ClientPayloadError:
                broken = True
    assert broken
