"""The forms in which responses are served. Unrecorded cases follow the real server's handlers/response.go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from pilothouse_simulator import SimulatedCluster
from tests.simulator.replay import create

pytestmark = pytest.mark.full

_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
_CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[SimulatedCluster]:
    async with SimulatedCluster(speed=20) as running:
        await create(running, _CONFIG_MAPS, {"metadata": {"name": "one"}})
        yield running


@pytest_asyncio.fixture
async def session(cluster: SimulatedCluster) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers) as opened:
        yield opened


def _refusal(message: str) -> dict[str, object]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "NotAcceptable",
        "code": 406,
    }


@pytest.mark.parametrize(
    ("path", "accept", "words"),
    [
        (
            f"{_CONFIG_MAPS}/one",
            _LIST,
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
        (
            _DEPLOYMENTS,
            _ONE,
            "you requested PartialObjectMetadata, but the requested object is a list (*apps.DeploymentList)",
        ),
        (
            _CONFIG_MAPS,
            "application/json;as=Something;g=meta.k8s.io;v=v1",
            "only the following media types are accepted: application/json, application/yaml, "
            "application/vnd.kubernetes.protobuf",
        ),
    ],
)
async def test_a_form_that_does_not_fit_is_not_acceptable(
    session: aiohttp.ClientSession, path: str, accept: str, words: str
) -> None:
    async with session.get(path, headers={"accept": accept}) as response:
        assert response.status == 406
        assert await response.json() == _refusal(words)


async def test_a_write_is_done_before_its_response_form_is_refused(session: aiohttp.ClientSession) -> None:
    body = {"metadata": {"name": "two"}}
    async with session.post(_CONFIG_MAPS, json=body, headers={"accept": _LIST}) as response:
        assert response.status == 406
    async with session.get(f"{_CONFIG_MAPS}/two") as response:
        assert response.status == 200


async def test_the_first_supported_form_is_used(session: aiohttp.ClientSession) -> None:
    accept = f"application/json;as=Something;g=meta.k8s.io;v=v1,{_LIST},application/json"
    async with session.get(_CONFIG_MAPS, headers={"accept": accept}) as response:
        assert (await response.json())["kind"] == "PartialObjectMetadataList"


async def test_a_watch_in_the_form_of_a_list_ends_at_its_first_event(
    cluster: SimulatedCluster, session: aiohttp.ClientSession
) -> None:
    query = {"watch": "true", "resourceVersion": str(cluster.store.revision), "timeoutSeconds": "600"}
    async with session.get(_CONFIG_MAPS, params=query, headers={"accept": _LIST}) as stream:
        assert stream.status == 200
        await create(cluster, _CONFIG_MAPS, {"metadata": {"name": "three"}})
        assert await stream.read() == b""
    async with session.get(_CONFIG_MAPS, params=query, headers={"accept": _ONE}) as stream:
        assert b'"kind":"PartialObjectMetadata"' in await stream.content.readline()
