"""Clients that disconnect or stop reading at any moment of a call.

The call ends, and it does not count as a failure of the server.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilothouse_server.rpc import pipeline
from pilothouse_server.rpc.response_stream import ResponseStream
from tests.promises.calling import token_of
from tests.promises.environment import Environment
from tests.promises.hostile import wire
from tests.promises.hostile.wire import Connection, frame
from tests.promises.requests import OWN, request_for
from tests.waiting import patient, poll_until, within

WATCH = "WatchContainers"
_TURNS = 40


@asynccontextmanager
async def connected(environment: Environment, window: int | None = None) -> AsyncIterator[Connection]:
    connection = Connection(environment.server.address, window=window)
    await connection.open()
    try:
        yield connection
    finally:
        connection.close()


def begun(environment: Environment, connection: Connection, method: str, token: str) -> int:
    """Begins a call and sends its request; returns the number of its stream."""
    rule = environment.rule(method)
    body = wire.message(request_for(rule, {"namespace": OWN}).SerializeToString())
    stream = connection.stream()
    connection.write(
        frame(wire.HEADERS, wire.END_HEADERS, stream, wire.header_block(rule.method, token))
        + frame(wire.DATA, wire.END_STREAM, stream, body)
    )
    return stream


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns the warnings and errors in the log."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def stalled(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Runs a watch whose first message is not read in time.

    Returns whether the watch has ended once its client reads the rest.
    """
    monkeypatch.setattr(pipeline, "WRITE_TIMEOUT_SECONDS", 0.2)
    async with connected(environment, window=0) as connection:
        stream = begun(environment, connection, WATCH, token_of(environment.admin))

        async def recorded() -> bool:
            async with environment.sql() as sql:
                count = "SELECT count(*) FROM operation_logs WHERE error_code = 'RESOURCE_EXHAUSTED'"
                return bool(await sql.fetchval(count))

        await poll_until(recorded)
        connection.write(frame(wire.WINDOW_UPDATE, 0, stream, struct.pack(">I", 1 << 20)))
        try:
            async with asyncio.timeout(patient(3.0)):
                await connection.ended(stream).wait()
        except TimeoutError:
            return False
    return True


async def test_a_stream_whose_first_message_is_not_read_ends(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert await stalled(environment, monkeypatch)
    assert said(caplog) == []


@pytest.mark.full
async def test_a_stream_whose_headers_are_sent_twice_is_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: headers are sent with the first message, as gRPC does by default.

    Such a call never ends.
    """

    async def write(self: ResponseStream, answer: bytes) -> None:
        await self._context.write(answer)

    monkeypatch.setattr(ResponseStream, "write", write)
    assert not await stalled(environment, monkeypatch)


@pytest.mark.parametrize("known", [True, False])
async def test_a_call_that_is_reset_leaves_no_failure(
    environment: Environment, caplog: pytest.LogCaptureFixture, known: bool
) -> None:
    token = token_of(environment.admin) if known else "nobody"
    for method in ("GetContainer", WATCH, "ListContainers"):
        async with connected(environment) as connection, within(15.0):
            for turns in range(_TURNS):
                streams = [begun(environment, connection, method, token) for _ in range(5)]
                await connection.drain()
                for _ in range(turns):
                    await asyncio.sleep(0)
                for stream in streams:
                    connection.write(frame(wire.RST_STREAM, 0, stream, wire.CANCEL))
            # A call that is not reset is served.
            last = begun(environment, connection, "ListContainers", token_of(environment.admin))
            await connection.all_ended([last])
        assert said(caplog) == [], method
        async with environment.sql() as sql:
            internal = "SELECT count(*) FROM operation_logs WHERE error_code = 'INTERNAL'"
            assert await sql.fetchval(internal) == 0, method
