"""The health service, which needs no token.

Its responses to a load balancer are tested from the start to the end of a server.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pilothouse.container.v1 import container_pb2
from pilothouse_server.rpc.health import NOT_SERVING, SERVING, Health
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import patient

_CONTAINERS = container_pb2.DESCRIPTOR.services_by_name["ContainerService"].full_name
# The published type stubs do not know `List` yet.
_MESSAGES: Any = health_pb2
_LIST = _MESSAGES.HealthListRequest()
# The server as a whole, and one service.
_NAMES = ("", _CONTAINERS)


def _stub(server: Server) -> Any:
    # The asynchronous stub is a type only; at run time there is one class for both.
    return health_pb2_grpc.HealthStub(server.channel())


async def test_a_started_server_serves(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        health = _stub(server)
        for name in _NAMES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.Check(health_pb2.HealthCheckRequest(service="nobody.v1.Service"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_list_returns_the_status_of_every_service(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        health = _stub(server)
        listed = (await health.List(_LIST)).statuses
        assert set(_NAMES) <= set(listed)
        assert {each.status for each in listed.values()} == {SERVING}


async def test_list_of_a_draining_server_stays_not_serving() -> None:
    health = Health()
    await health.set(_CONTAINERS, SERVING)
    await health.drain()
    await health.set(_CONTAINERS, SERVING)
    listed = (await health.List(_LIST, None)).statuses
    assert {name: each.status for name, each in listed.items()} == dict.fromkeys(_NAMES, NOT_SERVING)


async def _asked(health: Any) -> Any:
    try:
        return (await health.Check(health_pb2.HealthCheckRequest())).status
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_a_draining_server_does_not_serve(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False, grace_seconds=60.0) as server:
        health = _stub(server)
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in _NAMES]
        for watch in watches:
            assert (await watch.read()).status == SERVING
        stopping = asyncio.create_task(server.application.stop())
        for watch in watches:
            assert (await watch.read()).status == NOT_SERVING
        # A single check returns NOT_SERVING, or finds the server closed by then; no stream delays the drain. gRPC
        # cancels a call that it has received but not yet handed over when the server stops.
        ends = (NOT_SERVING, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert await _asked(health) in ends
        await asyncio.wait_for(stopping, patient(30))
