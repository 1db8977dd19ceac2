"""A server that is killed or stopped, and started again, as seen by four clients that poll ten times a second."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CONFIG_MAPS, NAMESPACES, PODS
from tests.simulator.recordings import load
from tests.simulator.replay import create
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_NAMESPACE = "rec-down"
_MAPS = f"/api/v1/namespaces/{_NAMESPACE}/configmaps"
_IDENTITIES = {"anonymous": "", "user viewer": "Bearer seen"}
_POLL_SECONDS = 0.1
# The actions on the server, in the words of the recordings.
_ENDS, _STARTS = ("gets SIGKILL", "gets SIGTERM"), "started again"


def _answers(exchanges: list[JsonObject]) -> dict[str, list[str]]:
    """Returns the successive results of each poller, without repetitions, by the poller's name in the recording."""
    found: dict[str, list[str]] = {}
    for exchange in exchanges:
        if poll := exchange.get("poll"):
            response = exchange["response"]
            _noted(found.setdefault(poll, []), str(response.get("status") or response["error"]))
    return found


def _noted(answers: list[str], answer: str) -> None:
    if answers[-1:] != [answer]:
        answers.append(answer)


def _moment(exchanges: list[JsonObject], *words: str) -> float:
    """Returns when an action happened, in seconds."""
    return next(
        float(exchange["at_ms"]) / 1000
        for exchange in exchanges
        if exchange["request"]["method"] == "-" and any(each in exchange["note"] for each in words)
    )


class _Poller:
    """Repeats one request; `answers` are the results that differ from the previous result."""

    def __init__(self, cluster: SimulatedCluster, exchange: JsonObject) -> None:
        self.answers: list[str] = []
        request = exchange["request"]
        self._cluster, self._path = cluster, request["path"]
        identity = _IDENTITIES[request["as"]] if "as" in request else f"Bearer {cluster.token}"
        self._headers = {"authorization": identity} if identity else {}
        self._kept = "kept connection" in exchange["poll"]
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(force_close=not self._kept)
        async with aiohttp.ClientSession(
            self._cluster.url, headers=self._headers, connector=connector
        ) as session:
            while True:
                try:
                    async with session.get(self._path) as response:
                        await response.read()
                        _noted(self.answers, str(response.status))
                except aiohttp.ClientConnectionError as error:
                    _noted(self.answers, type(error).__name__)
                await self._cluster.clock.sleep(_POLL_SECONDS)

    async def end(self) -> None:
        await cancel_and_wait(self._task)


async def _stream(
    session: aiohttp.ClientSession, exchange: JsonObject, version: str
) -> tuple[list[str], str]:
    """Returns the lines of a watch or a log, and how it ended."""
    request = exchange["request"]
    lines: list[str] = []
    query = {**request["query"], **({"resourceVersion": version} if "watch" in request["query"] else {})}
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with session.get(request["path"], params=query, timeout=timeout) as response:
            assert response.status == exchange["response"]["status"]
            while line := await response.content.readline():
                lines.append(line.decode())
    except aiohttp.ClientError as error:
        return lines, type(error).__name__
    return lines, "server closed"


async def _prepared(cluster: SimulatedCluster) -> None:
    cluster.users.add("seen", "viewer", [])
    cluster.store.create(NAMESPACES, {"metadata": {"name": _NAMESPACE}})
    await poll_cluster(cluster, lambda: bool(cluster.store.list(CONFIG_MAPS, _NAMESPACE)))
    script = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.5; done"
    container = {"name": "main", "image": "busybox:1", "command": ["sh", "-c", script]}
    pod = {"metadata": {"name": "talk"}, "spec": {"containers": [container]}}
    await create(cluster, f"/api/v1/namespaces/{_NAMESPACE}/pods", pod)
    await poll_cluster(cluster, lambda: _phase(cluster) == "Running")


def _phase(cluster: SimulatedCluster) -> str:
    pod = cluster.store.get(PODS, _NAMESPACE, "talk")
    return str(pod["status"].get("phase")) if pod is not None else ""


def _change(cluster: SimulatedCluster, text: str) -> None:
    config_map = copy_json(cluster.store.get(CONFIG_MAPS, _NAMESPACE, "c"))
    assert config_map is not None
    config_map["data"]["i"] = text
    cluster.store.update(CONFIG_MAPS, config_map)


@pytest.mark.parametrize("name", ["11a-apiserver-killed", "11a-apiserver-stopped"])
@virtual_time
async def test_an_outage_is_seen_as_recorded(name: str) -> None:
    exchanges = load(name)["exchanges"]
    kill = "killed" in name
    ends, starts = _moment(exchanges, *_ENDS), _moment(exchanges, _STARTS)
    gone, ready = _moment(exchanges, "process has ended"), _moment(exchanges, "readyz is 200")
    expected = _answers(exchanges)
    async with SimulatedCluster(nodes=1) as cluster:
        await _prepared(cluster)
        version = str(cluster.store.revision)
        await create(cluster, _MAPS, {"metadata": {"name": "c"}, "data": {"i": "0"}})
        _change(cluster, "1")
        headers = {"authorization": f"Bearer {cluster.token}"}
        async with aiohttp.ClientSession(cluster.url, headers=headers) as session:
            streams = [asyncio.create_task(_stream(session, exchange, version)) for exchange in exchanges[:3]]
            pollers = {
                exchange["poll"]: _Poller(cluster, exchange)
                for exchange in exchanges[3:7]
                if "poll" in exchange
            }
            assert pollers.keys() == expected.keys()
            await cluster.clock.sleep(ends - exchanges[0]["at_ms"] / 1000)
            await (cluster.api_server.kill() if kill else cluster.api_server.terminate())
            for exchange, (lines, ended) in zip(exchanges, await asyncio.gather(*streams), strict=False):
                recorded = exchange["response"]
                assert ended == recorded["ended"].partition(":")[0]
                types = [json.loads(line)["type"] for line in lines if line.startswith("{")]
                assert (
                    types[-1:] == [line["json"]["type"] for line in recorded["lines"] if "json" in line][-1:]
                )
            if not kill:
                assert cluster.clock.elapsed() > gone - ends
            await cluster.clock.sleep(starts - gone)
            await cluster.api_server.start_again()
            await cluster.clock.sleep(ready - starts)
            for poller in pollers.values():
                await poller.end()
            assert {poll: poller.answers for poll, poller in pollers.items()} == expected
            await _afterwards(session, exchanges[-4:], version)


async def _afterwards(session: aiohttp.ClientSession, exchanges: list[JsonObject], version: str) -> None:
    """Checks that old watches are refused, past versions can be listed, and pods are unaffected."""
    for exchange in exchanges[:2]:
        (line,), ended = await _stream(session, exchange, version)
        (recorded,) = exchange["response"]["lines"]
        told, expected = json.loads(line), recorded["json"]
        assert ended == exchange["response"]["ended"]
        assert told["type"] == expected["type"] == "ERROR"
        assert {**told["object"], "message": ""} == {**expected["object"], "message": ""}
    query = {**exchanges[2]["request"]["query"], "resourceVersion": version}
    async with session.get(exchanges[2]["request"]["path"], params=query) as response:
        assert response.status == exchanges[2]["response"]["status"]
        items = (await response.json())["items"]
    assert [item["metadata"]["name"] for item in items] == [
        item["metadata"]["name"] for item in exchanges[2]["response"]["body"]["items"]
    ]
    async with session.get(exchanges[3]["request"]["path"]) as response:
        status, recorded = (await response.json())["status"], exchanges[3]["response"]["body"]["status"]
    assert status["phase"] == recorded["phase"]
    assert status["containerStatuses"][0]["restartCount"] == recorded["containerStatuses"][0]["restartCount"]
