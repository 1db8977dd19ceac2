"""Unrecorded behaviour: authentication, injected faults, persistence, and the start of the program."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner

from pilothouse_client.cli import app
from pilothouse_simulator import FaultPlan, SimulatedCluster
from pilothouse_simulator.store.schema_build import TYPES_FILE, render
from pilothouse_simulator.values.pod_behavior import PREFIX, Behavior
from tests.simulator.program import simulate_cluster
from tests.virtual_time import virtual_time
from tests.waiting import poll_until, runs_out

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_NAMESPACES = "/api/v1/namespaces"


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with SimulatedCluster(speed=20) as running:
        yield running


@pytest_asyncio.fixture
async def session(cluster: SimulatedCluster) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers) as opened:
        yield opened


@pytest.mark.parametrize(
    ("authorization", "code", "reason"),
    [
        ("Bearer wrong", 401, "Unauthorized"),
        ("Bearer ", 401, "Unauthorized"),
        # Anonymous, as in a real cluster: the request is admitted, but has no rights.
        (None, 403, "Forbidden"),
        ("Basic abc", 403, "Forbidden"),
    ],
)
async def test_every_resource_needs_the_token(
    cluster: SimulatedCluster, authorization: str | None, code: int, reason: str
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with (
        aiohttp.ClientSession(cluster.url, headers=headers) as anonymous,
        anonymous.get(_NAMESPACES) as response,
    ):
        assert response.status == code
        assert (await response.json())["reason"] == reason


async def test_the_next_requests_fail_as_requested(
    cluster: SimulatedCluster, session: aiohttp.ClientSession
) -> None:
    cluster.faults.fail_next(1, 503)
    cluster.faults.fail_next(1, 429)
    answers = []
    for _ in range(3):
        async with session.get(_NAMESPACES) as response:
            body = await response.json()
            answers.append((response.status, body.get("reason"), response.headers.get("Retry-After")))
    assert answers == [(503, "ServiceUnavailable", None), (429, "TooManyRequests", "1"), (200, None, None)]


async def test_refused_connections_get_no_response(
    cluster: SimulatedCluster, session: aiohttp.ClientSession
) -> None:
    cluster.faults.refuse_connections = True
    with pytest.raises(aiohttp.ClientError):
        await session.post(_NAMESPACES, json={"metadata": {"name": "a"}})
    cluster.faults.clear()
    async with session.get(f"{_NAMESPACES}/a") as response:
        assert response.status == 404


async def test_latency_delays_responses(cluster: SimulatedCluster, session: aiohttp.ClientSession) -> None:
    cluster.faults.latency_seconds = 30
    with pytest.raises(TimeoutError):
        await session.get(_NAMESPACES, timeout=aiohttp.ClientTimeout(total=runs_out(0.05)))
    cluster.faults.latency_seconds = 0
    async with session.get(_NAMESPACES) as response:
        assert response.status == 200


async def test_faults_are_set_over_http(cluster: SimulatedCluster, session: aiohttp.ClientSession) -> None:
    plan = {"error_rate": 1, "error_code": 500, "fail_next": {"count": 1, "code": 504}}
    async with session.post("/simulator/faults", json=plan) as response:
        assert (await response.json())["failures_to_come"] == 1
    statuses = []
    for _ in range(2):
        async with session.get(_NAMESPACES) as response:
            statuses.append(response.status)
    assert statuses == [504, 500]
    async with session.post("/simulator/faults", json={"no_such_fault": 1}) as response:
        assert response.status == 400
    async with session.post("/simulator/faults", json={"clear": True}) as response:
        assert response.status == 200
    async with session.get(_NAMESPACES) as response:
        assert response.status == 200


async def test_faults_need_the_token(cluster: SimulatedCluster) -> None:
    async with (
        aiohttp.ClientSession(cluster.url) as anonymous,
        anonymous.post("/simulator/faults", json={"error_rate": 1}) as response,
    ):
        assert response.status == 401
    assert cluster.faults.error_rate == 0


def test_an_error_rate_is_a_share_of_requests() -> None:
    plan = FaultPlan(error_rate=0.25)
    plan.randomness.seed(7)
    failed = sum(plan.next_error() is not None for _ in range(1000))
    assert 200 < failed < 300


async def _wait_for_pods(session: aiohttp.ClientSession, count: int) -> list[JsonObject]:
    async def listed() -> list[JsonObject]:
        async with session.get(f"{_NAMESPACES}/default/pods") as response:
            pods: list[JsonObject] = (await response.json())["items"]
        return pods

    running = ["Running"] * count
    return await poll_until(listed, lambda pods: [pod["status"]["phase"] for pod in pods] == running)


async def test_a_restarted_cluster_has_its_former_state(tmp_path: Path) -> None:
    state = tmp_path / "state" / "cluster.json"
    deployment = {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": "busybox:1"}]},
            },
        },
    }
    service: JsonObject = {
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}},
    }
    async with SimulatedCluster(speed=20, state_path=state, token="kept") as first:
        headers = {"authorization": "Bearer kept"}
        async with aiohttp.ClientSession(first.url, headers=headers) as session:
            await session.post("/apis/apps/v1/namespaces/default/deployments", json=deployment)
            await session.post(f"{_NAMESPACES}/default/services", json=service)
            before = await _wait_for_pods(session, 2)
            async with session.get(f"{_NAMESPACES}/default/services/web") as response:
                address = (await response.json())["spec"]["clusterIP"]
    revision = first.store.revision
    async with SimulatedCluster(speed=20, state_path=state, token="kept") as second:
        assert second.store.revision >= revision
        async with aiohttp.ClientSession(second.url, headers=headers) as session:
            after = await _wait_for_pods(session, 2)
            spec = {**service["spec"], "clusterIP": address}
            taken = {"metadata": {"name": "other"}, "spec": spec}
            async with session.post(f"{_NAMESPACES}/default/services", json=taken) as response:
                assert response.status == 422
            query = {"watch": "true", "resourceVersion": "2"}
            async with session.get(f"{_NAMESPACES}/default/pods", params=query) as response:
                line = json.loads(await response.content.readline())
    assert [pod["metadata"]["uid"] for pod in after] == [pod["metadata"]["uid"] for pod in before]
    assert line["object"]["reason"] == "Expired"


@virtual_time
async def test_only_the_owner_may_read_the_state_file(tmp_path: Path) -> None:
    """The state file contains the values of Secrets."""
    state = tmp_path / "folder" / "cluster.json"
    async with SimulatedCluster(state_path=state):
        pass
    assert [stat.filemode(path.stat().st_mode) for path in (state.parent, state)] == [
        "drwx------",
        "-rw-------",
    ]
    # The permissions of the file were widened, and a killed process left the other file during a write.
    state.chmod(0o644)
    state.with_name("cluster.json.new").touch(mode=0o644)
    async with SimulatedCluster(state_path=state):
        pass
    assert stat.filemode(state.stat().st_mode) == "-rw-------"


async def test_the_command_prints_a_kubeconfig_and_ends_on_a_signal() -> None:
    async with simulate_cluster("--nodes", "1") as text:
        kubeconfig = yaml.safe_load(text)
    (entry,) = kubeconfig["clusters"]
    # kubectl sends no token over plain HTTP, and trusts only the given certificate authority.
    assert entry["cluster"]["server"].startswith("https://127.0.0.1:")
    assert base64.b64decode(entry["cluster"]["certificate-authority-data"]).startswith(b"-----BEGIN")
    assert kubeconfig["users"][0]["user"]["token"]


def test_the_help_of_the_command_names_behaviours_and_faults() -> None:
    shown = CliRunner().invoke(app, ["simulate-cluster", "--help"]).output
    faults = FaultPlan().to_json().keys() - {"failures_to_come", "answers_to_lose"}
    for word in (PREFIX + "behavior", *Behavior, "/simulator/faults", *faults):
        assert word in shown, word


def test_the_schema_is_that_of_the_kubernetes_models() -> None:
    assert TYPES_FILE.read_text() == render(), "run python -m pilothouse_simulator.store.schema_build"
