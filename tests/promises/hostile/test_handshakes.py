"""TLS handshakes that are never finished.

The server ends each in time, and no other call fails.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pilothouse.identity.v1 import identity_pb2, identity_pb2_grpc
from tests.conftest import Database
from tests.tls.serving import serving_tls, token_of_admin
from tests.waiting import runs_out, within

pytestmark = pytest.mark.full

_OF_EACH = 100
# The beginning of a handshake, which announces 512 further bytes.
_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(501)
_BYTE_SECONDS = 0.05
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


class Stranger(asyncio.Protocol):
    """An anonymous connection that waits for its end.

    It sends `words` immediately, then the bytes of `rest` one at a time.
    """

    def __init__(self, words: bytes = b"", rest: bytes = b"") -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._words = words
        self._rest: Iterator[int] = iter(rest)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._words)
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _go_on(self) -> None:
        each = next(self._rest, None)
        if each is not None and not self.ended.done():
            self.transport.write(bytes([each]))
            asyncio.get_running_loop().call_later(_BYTE_SECONDS, self._go_on)


async def attacked(port: int) -> list[Stranger]:
    """Opens and returns anonymous connections of each kind.

    The kinds are: silent, with half of a ClientHello, with one byte of a ClientHello at a time, and with a
    complete handshake that is followed by nothing.
    """
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    strangers = []
    for make, tls in (
        (Stranger, None),
        (lambda: Stranger(_HELLO[:50]), None),
        (lambda: Stranger(_HELLO[:1], _HELLO[1:]), None),
        (Stranger, context),
    ):
        for _ in range(_OF_EACH):
            _, stranger = await loop.create_connection(make, "127.0.0.1", port, ssl=tls)
            strangers.append(stranger)
    return strangers


async def test_unfinished_handshakes_are_ended_and_fail_no_other_call(
    database: Database, tmp_path: Path
) -> None:
    async with serving_tls(database, tmp_path, handshake_seconds=3.0) as (server, files):
        token = await token_of_admin(server, files)
        over = asyncio.Event()
        calls = 0

        async def call_by_new_connections() -> None:
            nonlocal calls
            while not over.is_set():
                credentials = files.tls.credentials()
                async with grpc.aio.secure_channel(server.address, credentials, _OWN_CONNECTION) as channel:
                    stub: Any = identity_pb2_grpc.IdentityServiceStub(channel)
                    metadata = [("authorization", f"Bearer {token}")]
                    await stub.WhoAmI(identity_pb2.WhoAmIRequest(), metadata=metadata)
                # Also calls on a connection that existed before.
                await server.admin.identity.who_am_i()
                calls += 1

        async with within(30.0), asyncio.TaskGroup() as group:
            bystander = group.create_task(call_by_new_connections())
            strangers = await attacked(int(server.address.rpartition(":")[2]))
            await asyncio.wait([stranger.ended for stranger in strangers])
            assert not bystander.done()
            over.set()
        assert len(strangers) == 4 * _OF_EACH
        assert calls > 0


async def test_a_server_that_waits_without_end_is_found(database: Database, tmp_path: Path) -> None:
    """The control: with a long handshake timeout, the connection stays open."""
    async with serving_tls(database, tmp_path, handshake_seconds=3600.0) as (server, _):
        _, stranger = await asyncio.get_running_loop().create_connection(
            Stranger, "127.0.0.1", int(server.address.rpartition(":")[2])
        )
        await asyncio.wait([stranger.ended], timeout=runs_out(4.0))
        assert not stranger.ended.done()
        stranger.transport.close()
