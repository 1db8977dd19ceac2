"""Headers beyond the limit are refused immediately for every method.

This applies even before a client knows the limit. gRPC clients acknowledge a server's settings, and only then
does gRPC limit their headers. It refuses with the same code, and without a message if that would be as large
as the headers.
"""

from __future__ import annotations

import pytest

from pilothouse_server.rpc import headers
from tests.identity.server import IdentityServer
from tests.promises.hostile import wire
from tests.promises.hostile.wire import Connection, frame
from tests.waiting import within

LOGIN = "/pilothouse.identity.v1.IdentityService/Login"
WHO_AM_I = "/pilothouse.identity.v1.IdentityService/WhoAmI"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
_REFUSED = b"grpc-status\x018"


async def answered(server: IdentityServer, method: str, kibibytes: int, *, request: bool) -> bytes:
    """Returns the response headers of a call with `kibibytes` headers of 1 KiB."""
    block = wire.header_block(method, extra=[(f"x-{number}", "y" * 990) for number in range(kibibytes)])
    connection = Connection(server.address)
    try:
        async with within(60.0):
            await connection.connect()
            # The call does not wait for the server's settings, so it does not acknowledge them first.
            connection.write(wire.PREFACE + wire.settings())
            stream = connection.stream()
            connection.write(wire.head(stream, block))
            if request:
                connection.write(frame(wire.DATA, wire.END_STREAM, stream, wire.message(b"")))
            connection.read()
            await connection.all_ended([stream])
    finally:
        connection.close()
    return bytes(connection.heads)


@pytest.mark.parametrize("method", [LOGIN, WHO_AM_I, wire.HEALTH, HEALTH_WATCH])
@pytest.mark.parametrize("kibibytes", [24, 100, 1000])
async def test_headers_beyond_the_limit_are_refused(
    shared: IdentityServer, method: str, kibibytes: int
) -> None:
    # No request follows, and the server does not wait for one.
    assert _REFUSED in await answered(shared, method, kibibytes, request=False)


@pytest.mark.parametrize("method", [WHO_AM_I, wire.HEALTH])
async def test_headers_within_the_limit_are_accepted(shared: IdentityServer, method: str) -> None:
    heads = await answered(shared, method, headers.SOFT_BYTES // 1024 - 1, request=True)
    assert heads
    assert _REFUSED not in heads


def test_each_header_counts_with_its_name() -> None:
    assert headers.fit([("x", "y" * (headers.MOST_BYTES - 33))])
    assert not headers.fit([("x", "y" * (headers.MOST_BYTES - 32))])
    assert not headers.fit([("x-bin", b"y" * headers.MOST_BYTES)])
    assert not headers.fit([("x", "")] * (headers.MOST_BYTES // 32))
