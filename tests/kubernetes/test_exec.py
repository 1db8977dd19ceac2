"""How a program ended that was run in a pod, by what a cluster says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.credentials import Credentials
from pilothouse_server.kubernetes.exec import PROTOCOLS, Ended, program


@asynccontextmanager
async def a_cluster_that_says(status: bytes) -> AsyncIterator[ClusterClient]:
    """A client of one that runs every program and says this of its end."""

    async def run(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=PROTOCOLS)
        await socket.prepare(request)
        await socket.send_bytes(b"\x03" + status)
        await socket.close()
        return socket

    application = web.Application()
    application.router.add_get("/api/v1/namespaces/shop/pods/web/exec", run)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        found = Credentials({"server": f"http://127.0.0.1:{runner.addresses[0][1]}"})
        client = await ClusterClient.from_kubeconfig(found.kubeconfig(), name="x")
        try:
            yield client
        finally:
            await client.close()
    finally:
        await runner.cleanup()


async def ended(status: bytes) -> Ended:
    """How a program ended, by a Status."""
    async with (
        a_cluster_that_says(status) as client,
        program(client, "shop", "web", container="c", command=["x"], stdin=False, tty=False) as running,
    ):
        (end,) = [each async for each in running.output()]
    assert isinstance(end, Ended)
    return end


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("3", 3),
        ("-1", -1),
        ("2147483647", 2**31 - 1),
        # An access violation, as Windows has it.
        ("3221225477", 3221225477 - 2**32),
        ("9999999999", None),
        ("12345678901", None),
        ("²", None),
        ("--5", None),
        ("", None),
    ],
)
async def test_an_exit_code_is_one_that_can_be_told(said: str, code: int | None) -> None:
    causes = [{"reason": "ExitCode", "message": said}]
    status = {"status": "Failure", "message": "it failed", "details": {"causes": causes}}
    assert await ended(msgspec.json.encode(status)) == (
        Ended(-1, "it failed") if code is None else Ended(code)
    )


@pytest.mark.parametrize("status", [b"", b"null", b"[" * 100_000, b'{"status": 5}', b"\xff"])
async def test_an_end_that_cannot_be_read_is_one(status: bytes) -> None:
    assert await ended(status) == Ended(-1, "the cluster's answer cannot be read")
