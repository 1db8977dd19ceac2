"""Streams over WebSockets: exec, revoked permissions, and clients that misbehave."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import WSMsgType

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.gateway.connections import ConnectionLimits
from tests.conftest import Database
from tests.gateway.browser import RULES, Browser, Ended, framed, port_of
from tests.harness import Server, running_server
from tests.main_job.executing import make_web, start
from tests.waiting import Stopwatch, poll_until, runs_out, within


async def test_a_browser_executes_a_program(server: Server) -> None:
    await make_web(server)
    async with (
        Browser(port_of(server), token=await server.token()) as page,
        page.stream("Exec") as talk,
    ):
        await talk.send(start("cat", "-", stdin=True))
        await talk.send(container_pb2.ExecRequest(stdin=b"hello\n"))
        await talk.send(container_pb2.ExecRequest(close_stdin=True))
        await talk.done()
        out = b""
        while not isinstance(answer := await talk.read(), Ended):
            out += answer.stdout
            if answer.HasField("result"):
                assert answer.result.exit_code == 0
        assert (answer.code, out) == (0, b"hello\n")


async def test_a_stream_ends_when_its_permission_is_revoked(server: Server) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="taken"))
    await server.user("taken-away", {"taken": "viewer"})
    async with (
        Browser(port_of(server), token=await server.token("taken-away")) as page,
        page.stream("WatchContainers") as watch,
    ):
        await watch.send(container_pb2.WatchContainersRequest(namespace="taken"))
        while (await watch.read()).change_type != resource_pb2.CHANGE_TYPE_SYNCED:
            pass
        await server.admin.identity.revoke_role(username="taken-away", role="viewer", namespace="taken")
        async with within(5.0):
            assert (await watch.end()).reason == "PERMISSION_REVOKED"


async def test_invalid_frames_and_tokens_end_the_call(server: Server) -> None:
    async with Browser(port_of(server), token=await server.token()) as page:
        async with page.stream("WatchNamespaces") as watch:
            await watch.socket.send_bytes(b"\x07\x00")
            ended = await watch.end()
            assert (ended.code, ended.reason) == (
                grpc.StatusCode.INVALID_ARGUMENT.value[0],
                "MALFORMED_MESSAGE",
            )
        async with page.stream("WatchNamespaces") as watch:
            await watch.socket.send_bytes(framed(bytes(70_000)))
            message = await watch.socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, aiohttp.WSCloseCode.MESSAGE_TOO_BIG)
        async with page.stream("WatchNamespaces", authorization="Bearer nothing") as watch:
            assert (await watch.end()).reason == "INVALID_TOKEN"


async def test_a_client_that_disconnects_ends_its_call(server: Server) -> None:
    admission = server.application.gateway._pipeline.admission  # type: ignore[union-attr]

    async def streams() -> int:
        return int(admission.streams.in_use)

    before = await streams()
    async with Browser(port_of(server), token=await server.token()) as page:
        async with page.stream("WatchNamespaces") as watch:
            await watch.send(namespace_pb2.WatchNamespacesRequest())
            await watch.read()
            assert await streams() == before + 1
        await poll_until(streams, lambda taken: taken == before)


@pytest.mark.full
async def test_slow_clients_are_disconnected_and_a_drain_ends_streams(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(
        database,
        tmp_path,
        with_cluster=False,
        http_listen="127.0.0.1:0",
        request_seconds=runs_out(0.3),
    ) as server:
        gateway = server.application.gateway
        assert gateway is not None
        gateway.connections.limits = ConnectionLimits(
            head_seconds=runs_out(0.3), stalled_seconds=runs_out(0.5), look_seconds=runs_out(0.1)
        )
        port, token = port_of(server), await server.token()
        await _half_a_body(port, token)
        await _stalled_reader(server, port, token)
        async with Browser(port, token=token) as page, page.stream("WatchNamespaces") as watch:
            await watch.send(namespace_pb2.WatchNamespacesRequest())
            await watch.read()
            stopping = asyncio.create_task(server.application.stop())
            assert (await watch.end()).reason == "SHUTTING_DOWN"
            await stopping
            with pytest.raises(aiohttp.ClientConnectorError):
                await page.call("WhoAmI")


async def _half_a_body(port: int, token: str) -> None:
    """Checks that a request whose body does not arrive ends with a response."""
    head = (
        f"POST {RULES['WhoAmI'].method} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    async with within(10.0):
        answer = await reader.read()
    assert b"REQUEST_TIMEOUT" in answer
    writer.close()


async def _stalled_reader(server: Server, port: int, token: str) -> None:
    """Checks that a client that reads nothing is disconnected within the limit."""
    gateway = server.application.gateway
    assert gateway is not None
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="long"))
    await server.admin.config.create_config_map(
        namespace="long",
        config_map=config_pb2.ConfigMap(name="long", namespace="long", data={"key": "x" * 900_000}),
    )
    body = b'{"namespace": "long", "name": "long"}'
    head = (
        f"POST {RULES['GetConfigMap'].method} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", port))
        stalled.sendall(head.encode() + body)
        began = Stopwatch()

        async def left() -> int:
            return gateway.connections.open

        await poll_until(left, lambda count: count == 1)
        await poll_until(left, lambda count: count == 0, seconds=10.0)
        assert began.passed() >= gateway.connections.limits.stalled_seconds
