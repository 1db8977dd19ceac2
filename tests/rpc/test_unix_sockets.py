"""A Unix socket to serve on: taken over only if its server has ended, and never from a file.

gRPC removes any socket of that name, and reports nothing.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pilothouse_server.rpc.health import SERVING, Health
from pilothouse_server.rpc.listener_shards import ListenerShards
from pilothouse_server.rpc.server import GrpcServer
from pilothouse_server.settings.model import Settings, SettingsError
from tests.waiting import patient


def _made(address: str) -> tuple[GrpcServer, grpc.aio.Server]:
    server, health = grpc.aio.server(), Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    # The server only binds an address; it admits no calls.
    nobody: Any = None
    return GrpcServer(ListenerShards([server]), health, (), Settings(listen=address), nobody), server


@asynccontextmanager
async def _serving(address: str) -> AsyncIterator[None]:
    made, server = _made(address)
    made.bind()
    await made.start()
    try:
        await made.serving(True)
        yield
    finally:
        await server.stop(None)


async def _answers(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=patient(5.0), wait_for_ready=True)
        return bool(answer.status == SERVING)


@pytest.mark.parametrize("kind", ["unix", "unix-abstract"])
async def test_the_socket_of_a_running_server_is_not_taken_over(tmp_path: Path, kind: str) -> None:
    address = f"{kind}:{tmp_path / 'a.sock'}"
    async with _serving(address):
        with pytest.raises(SettingsError, match=r"PILOTHOUSE_LISTEN: .*: another program listens there"):
            _made(address)[0].bind()
        assert await _answers(address)


async def test_a_file_at_the_socket_path_is_kept_and_reported(tmp_path: Path) -> None:
    place = tmp_path / "a.sock"
    place.write_text("what somebody keeps")
    with pytest.raises(SettingsError, match="a file of that name exists and is not a socket"):
        _made(f"unix:{place}")[0].bind()
    assert place.read_text() == "what somebody keeps"


async def test_the_socket_of_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    place = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(place))
        killed.listen()
    assert place.is_socket()
    async with _serving(f"unix:{place}"):
        assert await _answers(f"unix:{place}")
