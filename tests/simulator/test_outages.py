"""A server that is killed, stopped and started again, and a server with unresponsive storage: as recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CONFIG_MAPS, NAMESPACES
from tests.simulator.recordings import load
from tests.simulator.replay import create
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_PATH = "/api/v1/namespaces/rec-down/configmaps"
_STALLED, _STOPPED, _KILLED = "11b-storage-stalled", "11a-apiserver-stopped", "11a-apiserver-killed"


@asynccontextmanager
async def _cluster() -> AsyncIterator[tuple[SimulatedCluster, aiohttp.ClientSession]]:
    """Yields a cluster with a config map `c`, and a session of its administrator."""
    async with SimulatedCluster(nodes=1) as cluster:
        cluster.store.create(NAMESPACES, {"metadata": {"name": "rec-down"}})
        await poll_cluster(cluster, lambda: bool(cluster.store.list(CONFIG_MAPS, "rec-down")))
        headers = {"authorization": f"Bearer {cluster.token}"}
        async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
            # Applied by the manager of the recordings, because later applies would conflict with another manager.
            applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"i": "0"}}
            async with session.patch(
                f"{_PATH}/c?fieldManager=pilothouse",
                headers={"content-type": "application/apply-patch+yaml"},
                data=json.dumps(applied),
            ) as response:
                assert response.status == 201
            yield cluster, session


def _change(cluster: SimulatedCluster, text: str) -> str:
    """Writes to `c` and returns its new version."""
    config_map = copy_json(cluster.store.get(CONFIG_MAPS, "rec-down", "c"))
    assert config_map is not None
    config_map["data"]["i"] = text
    return str(cluster.store.update(CONFIG_MAPS, config_map)["metadata"]["resourceVersion"])


class _Watch:
    """A watch and its outcome. `ended` is None while the watch runs, and empty after a normal end."""

    def __init__(self, session: aiohttp.ClientSession, version: str) -> None:
        self.lines: list[JsonObject] = []
        self.ended: str | None = None
        self._session, self._version = session, version
        self._began = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def began(self) -> _Watch:
        await self._began.wait()
        return self

    async def finished(self) -> str:
        await self._task
        return self.ended or ""

    async def _run(self) -> None:
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version}
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            async with self._session.get(_PATH, params=query, timeout=timeout) as response:
                self._began.set()
                async for line in response.content:
                    self.lines.append(json.loads(line))
        except aiohttp.ClientError as error:
            self.ended = type(error).__name__
        else:
            self.ended = ""


def _watches(recording: str) -> list[JsonObject]:
    exchanges = load(recording)["exchanges"]
    return [entry["response"] for entry in exchanges if entry["request"]["query"].get("watch") == "true"]


async def _readyz(session: aiohttp.ClientSession) -> int:
    async with session.get("/readyz") as response:
        return response.status


@virtual_time
async def test_a_killed_server_breaks_watches_and_refuses_connections() -> None:
    recorded = _watches(_KILLED)[0]
    async with _cluster() as (cluster, session):
        watch = await _Watch(session, _change(cluster, "1")).began()
        _change(cluster, "2")
        await poll_cluster(cluster, lambda: len(watch.lines) == 1)
        await cluster.api_server.kill()
        assert await watch.finished() == recorded["ended"].partition(":")[0] == "ClientPayloadError"
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(_PATH)


@virtual_time
async def test_a_stopped_server_leaves_watches_open_and_silent_for_a_minute() -> None:
    recorded = _watches(_STOPPED)[0]
    async with _cluster() as (cluster, session):
        watch = await _Watch(session, _change(cluster, "1")).began()
        began = cluster.clock.elapsed()
        await cluster.api_server.terminate()
        _change(cluster, "2")
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(_PATH)
        await cluster.clock.sleep(30)
        assert watch.ended is None
        assert watch.lines == []
        assert await watch.finished() == ""
        assert recorded["ended"] == "server closed"
        assert cluster.clock.elapsed() - began == pytest.approx(60, abs=1)
        assert (
            [line["type"] for line in watch.lines] == [recorded["lines"][-1]["json"]["type"]] == ["BOOKMARK"]
        )


@virtual_time
async def test_a_started_server_is_first_forbidding_then_unready_then_ready() -> None:
    """Users with rights from roles get 403, then 200; /readyz returns 403, then 500, then 200; old watches get 410."""
    recorded = _watches(_KILLED)
    async with _cluster() as (cluster, session):
        rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        cluster.users.add("bound", "bound", rules)
        bound = {"authorization": "Bearer bound"}
        seen = _change(cluster, "1")
        _change(cluster, "2")
        await cluster.api_server.kill()
        await cluster.clock.sleep(2)
        await cluster.api_server.start_again()
        assert await _readyz(session) == 403
        async with session.get(_PATH, headers=bound) as response:
            assert response.status == 403
            assert (await response.json())["reason"] == "Forbidden"
        async with session.get(_PATH) as response:
            assert response.status == 200
        await cluster.clock.sleep(0.7)
        assert await _readyz(session) == 500
        async with session.get(_PATH, headers=bound) as response:
            assert response.status == 200
        await cluster.clock.sleep(0.7)
        assert await _readyz(session) == 200
        resumed = _Watch(session, seen)
        assert await resumed.finished() == ""
        (line,) = resumed.lines
        expected = recorded[-1]["lines"][0]["json"]
        assert line["type"] == expected["type"] == "ERROR"
        assert line["object"]["code"] == expected["object"]["code"] == 410
        exact = {"resourceVersion": seen, "resourceVersionMatch": "Exact"}
        async with session.get(_PATH, params=exact) as response:
            assert response.status == 200


@virtual_time
async def test_a_watch_of_the_newest_version_continues_after_a_restart() -> None:
    async with _cluster() as (cluster, session):
        newest = _change(cluster, "1")
        assert str(cluster.store.revision) == newest
        await cluster.api_server.restart(kill=False, down_seconds=1)
        watch = await _Watch(session, newest).began()
        _change(cluster, "2")
        await poll_cluster(cluster, lambda: [line["type"] for line in watch.lines] == ["MODIFIED"])


@virtual_time
async def test_a_followed_log_breaks_when_its_server_stops() -> None:
    async with _cluster() as (cluster, session):
        script = "while true; do echo x; sleep 1; done"
        talk = {"name": "main", "image": "busybox:1", "command": ["sh", "-c", script]}
        body = {"metadata": {"name": "talk"}, "spec": {"containers": [talk]}}
        await create(cluster, "/api/v1/namespaces/rec-down/pods", body)
        await cluster.clock.sleep(3)
        async with session.get(
            "/api/v1/namespaces/rec-down/pods/talk/log", params={"follow": "true"}
        ) as response:
            assert await response.content.readline() == b"x\n"
            await cluster.api_server.terminate(grace_seconds=5)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


def _content(body: JsonObject) -> list[tuple[str, JsonObject]]:
    """Returns the content of config maps except `kube-root-ca.crt`, which was created late in the recording."""
    items = [(item["metadata"]["name"], item["data"]) for item in body.get("items", [body])]
    return [item for item in items if item[0] != "kube-root-ca.crt"]


@virtual_time
async def test_unresponsive_storage_is_as_recorded() -> None:
    exchanges = load(_STALLED)["exchanges"]
    async with _cluster() as (cluster, session):
        watch = await _Watch(session, str(cluster.store.revision)).began()
        cluster.faults.storage_stalled = True

        async def ask(number: int) -> None:
            request, recorded = exchanges[number]["request"], exchanges[number]["response"]
            path = request["path"].replace("rec-etcd", "rec-down")
            headers = {"content-type": request["headers"].get("content-type", "application/json")}
            body = request.get("body")
            data = None if body is None else json.dumps(body).replace("rec-etcd", "rec-down")
            began = cluster.clock.elapsed()
            async with session.request(
                request["method"], path, params=request["query"], headers=headers, data=data
            ) as response:
                text = await response.text()
            assert response.status == recorded["status"], number
            assert response.headers["content-type"] == recorded["headers"]["content-type"], number
            assert cluster.clock.elapsed() - began == pytest.approx(recorded["took_ms"] / 1000, abs=0.1), (
                number
            )
            if "body" not in recorded:
                return
            if recorded["status"] >= 400:
                assert json.loads(text) == recorded["body"], number
            else:
                assert _content(json.loads(text)) == _content(recorded["body"]), number

        def seen() -> list[tuple[str, str]]:
            return [(line["type"], line["object"]["metadata"]["name"]) for line in watch.lines]

        # List and get from the cache; list, get, apply and create; both health checks; an invalid timeout.
        await asyncio.gather(*(ask(number) for number in range(2, 11)))
        assert watch.lines == []
        assert cluster.store.get(CONFIG_MAPS, "rec-down", "d") is None
        cluster.faults.storage_stalled = False
        await poll_cluster(cluster, lambda: cluster.store.get(CONFIG_MAPS, "rec-down", "d") is not None)
        await ask(12)
        await poll_cluster(cluster, lambda: seen() == [("ADDED", "d")])
        # Stopped instead of stalled storage: writes during that time are never stored.
        cluster.faults.storage_stopped = True
        await asyncio.gather(*(ask(number) for number in range(14, 19)))
        await ask(19)
        cluster.faults.storage_stopped = False
        await ask(21)
        await ask(22)
        await poll_cluster(cluster, lambda: seen() == [("ADDED", "d"), ("MODIFIED", "c")])


@virtual_time
async def test_a_write_with_a_lost_response_is_stored() -> None:
    async with _cluster() as (cluster, session):
        cluster.faults.lose_answers(1)
        body = {"metadata": {"name": "lost"}}
        async with session.get(_PATH) as response:
            assert response.status == 200
        async with session.post(_PATH, json=body) as response:
            assert response.status == 504
            assert response.content_type == "text/plain"
        async with session.post(_PATH, json=body) as response:
            assert response.status == 409
            assert (await response.json())["reason"] == "AlreadyExists"


@virtual_time
async def test_a_restart_can_be_requested_over_http() -> None:
    async with _cluster() as (cluster, session):
        plan = {"restart": {"kill": True, "down_seconds": 1}}
        async with session.post("/simulator/faults", json=plan):
            pass
        await cluster.clock.sleep(0.5)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(_PATH)
        await cluster.clock.sleep(2.5)
        assert await _readyz(session) == 200
