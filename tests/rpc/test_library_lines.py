"""Log lines that anonymous callers make libraries write: bounded, and without the received bytes."""

from __future__ import annotations

import asyncio
import logging

import grpc.aio
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2_grpc

from pilothouse_server.rpc.health import Health
from pilothouse_server.runtime import log_lines
from tests.promises.hostile.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    Connection,
    frame,
    header_block,
    literal,
    message,
)
from tests.server_logs import logging_as_served
from tests.waiting import patient

# More lines of one kind than are shown.
_MANY = 25


async def test_binary_header_values_neither_fill_the_log_nor_appear_in_it() -> None:
    """gRPC logs each such header with its value, before any code of the product runs."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    caller = Connection(f"127.0.0.1:{port}")
    try:
        with logging_as_served("INFO", "json") as written:
            await caller.open()
            streams = [caller.stream() for _ in range(_MANY)]
            block = header_block("/grpc.health.v1.Health/Check") + literal(
                (b"authorization", b"Bearer a-credential\xff")
            )
            for stream in streams:
                caller.write(
                    frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message(b""))
                )
            await asyncio.wait_for(caller.all_ended(streams), patient(60))
    finally:
        caller.close()
        await server.stop(0)
    lines = written.getvalue().splitlines()
    # Some lines are written, so that an operator sees the problem.
    assert 1 <= len(lines) <= 10
    assert not [line for line in lines if "a-credential" in line or "Traceback" in line]


async def test_a_refused_http_request_is_logged_without_its_headers() -> None:
    """aiohttp quotes the line that it cannot read, before any code of the product runs."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        raise LookupError(request.headers["Host"])

    server = web.Server(answer, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    address = listener.sockets[0].getsockname()[:2]
    requests = (
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-credential\x00\r\n\r\n",
        b"GET /?token=a-credential\x01 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\na-credential",
        b"GET / HTTP/1.1\r\nHost: a-credential\r\n\r\n",
    )
    try:
        with logging_as_served("INFO", "text") as written:
            for request in requests:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(request)
                status = await asyncio.wait_for(reader.readline(), patient(20))
                assert status.startswith((b"HTTP/1.0 400", b"HTTP/1.1 500")), status
                writer.close()
    finally:
        listener.close()
        await server.shutdown(0)
    lines = written.getvalue()
    assert lines.count("Error handling request from 127.0.0.1") == len(requests)
    assert "a-credential" not in lines
    # A fault of the product keeps its traceback.
    assert lines.count("Traceback") == 1
    assert "RuntimeError: LookupError" in lines


def _next_while() -> None:
    bounded = next(
        each for each in logging.getLogger().handlers[0].filters if isinstance(each, log_lines._Bounded)
    )
    bounded._kinds = {kind: (0.0, so_far) for kind, (_ends, so_far) in bounded._kinds.items()}


def test_the_next_period_reports_how_many_lines_were_left_out() -> None:
    library = logging.getLogger("some.library")

    def warn(count: int) -> None:
        for number in range(count):
            library.warning("odd thing %d of %s", number, b"a-credential")

    with logging_as_served("INFO", "json") as written:
        warn(_MANY)
        library.warning("of another kind")
        shown = written.getvalue().splitlines()
        _next_while()
        warn(1)
        later = written.getvalue().splitlines()[len(shown) :]
    assert len(shown) == 11
    assert "of another kind" in shown[-1]
    assert "odd thing 0 of [not shown]" in shown[0]
    assert ["(15 more like it were left out)" in line for line in later] == [True]


def test_a_line_whose_arguments_do_not_fit_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    library = logging.getLogger("some.library")
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def warn(count: int) -> None:
        for _ in range(count):
            library.warning("odd thing %d", "of no number")

    with logging_as_served("INFO", "json") as written:
        warn(_MANY)
        _next_while()
        warn(1)
        library.warning("what fits")
    assert "what fits" in written.getvalue()
