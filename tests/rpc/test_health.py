"""The health service, which needs no token: what a load balancer is told from the start to the end of a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pilothouse.container.v1 import container_pb2
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import patient

_CONTAINERS = container_pb2.DESCRIPTOR.services_by_name["ContainerService"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# Overall, and of one service.
_NAMES = ("", _CONTAINERS)


def _stub(server: Server) -> Any:
    # The asynchronous stub is a type only; at run time there is one class for both.
    return health_pb2_grpc.HealthStub(server.channel())


async def test_a_started_server_serves(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        health = _stub(server)
        for name in _NAMES:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == _SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.Check(health_pb2.HealthCheckRequest(service="nobody.v1.Service"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


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
            assert (await watch.read()).status == _SERVING
        stopping = asyncio.create_task(server.application.stop())
        for watch in watches:
            assert (await watch.read()).status == _NOT_SERVING
        # Who only asks is told so, or by then finds the door closed; nobody holds the drain up.
        assert await _asked(health) in (_NOT_SERVING, grpc.StatusCode.UNAVAILABLE)
        await asyncio.wait_for(stopping, patient(30))
