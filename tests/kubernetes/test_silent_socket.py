"""A cluster that ignores the close of a connection does not block the server.

The same applies to a cluster that keeps sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web

from pilothouse_server.kubernetes import transport
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.exec import PROTOCOLS, program
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.waiting import runs_out, within


@asynccontextmanager
async def unfriendly_cluster(*, talks: bool) -> AsyncIterator[ClusterClient]:
    """Yields a client of a cluster that accepts a WebSocket and reads nothing from it.

    With `talks`, the cluster keeps sending.
    """
    over = asyncio.Event()

    async def take(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=PROTOCOLS, autoclose=False, autoping=False)
        await socket.prepare(request)
        if talks:
            with suppress(ConnectionError):
                while True:
                    await socket.send_bytes(b"\x01a line of its output\n")
                    await asyncio.sleep(0)
        await over.wait()
        return socket

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(application, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kubeconfig = {
        "clusters": [{"name": "silent", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "contexts": [{"name": "silent", "context": {"cluster": "silent"}}],
        "current-context": "silent",
    }
    client = await ClusterClient.from_kubeconfig(kubeconfig, name="silent")
    try:
        yield client
    finally:
        over.set()
        await client.close()
        await runner.cleanup()


async def broken_off(client: ClusterClient) -> None:
    running = program(
        client, "demo", "web-0", container="main", command=["sleep", "600"], stdin=False, tty=False
    )
    async with running:
        pass


@pytest.mark.parametrize("talks", [False, True])
async def test_a_program_is_aborted_within_a_second(monkeypatch: pytest.MonkeyPatch, talks: bool) -> None:
    async with unfriendly_cluster(talks=talks) as client:
        # A drain allows one second for this.
        async with within(1.0):
            await broken_off(client)
        # The control: a client without these limits waits for the cluster's response, after everything sent
        # before it.
        monkeypatch.setattr(transport, "_CLOSE_SECONDS", 600.0)
        monkeypatch.setattr(transport, "_MOST_LAST_MESSAGES", 1_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(broken_off(client), runs_out(1.5))


async def test_a_cancelled_close_handshake_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: the connection was left to the garbage collector.

    The warning appeared in an unrelated test.
    """
    saying = asyncio.Event()
    sockets: list[aiohttp.ClientWebSocketResponse] = []
    farewell = transport._farewell

    async def seen(socket: aiohttp.ClientWebSocketResponse) -> None:
        sockets.append(socket)
        saying.set()
        await farewell(socket)

    monkeypatch.setattr(transport, "_farewell", seen)
    monkeypatch.setattr(transport, "_CLOSE_SECONDS", 600.0)
    async with unfriendly_cluster(talks=False) as client:
        running = asyncio.create_task(broken_off(client))
        async with within(10.0):
            await saying.wait()
            await cancel_and_wait(running)
        (socket,) = sockets
        assert socket.closed
        assert socket._response.connection is None
