"""The status of a call that the server ends while the client writes a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio
import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.errors import PermissionDeniedError, PilothouseError
from pilothouse_client.methods import method_of
from pilothouse_client.target import Target
from pilothouse_client.transport import AsyncTransport, Envelope
from tests.waiting import poll_until, runs_out, within

_EXEC = method_of(pb.ExecRequest, pb.ExecResponse)
_COPY_TO = method_of(pb.CopyToRequest, pb.CopyToResponse)
_ENVELOPE = Envelope((), None)


@asynccontextmanager
async def _server_of(**handlers: Any) -> AsyncIterator[AsyncTransport]:
    """Yields a client of a server whose ContainerService has these methods."""
    server = grpc.aio.server()
    service = _EXEC.path.split("/")[1]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = AsyncTransport(Target(f"127.0.0.1:{port}", None))
    try:
        yield transport
    finally:
        await transport.close()
        await server.stop(None)


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED])
async def test_the_client_waits_for_the_servers_status(code: grpc.StatusCode) -> None:
    """When a write fails before the call has a status, grpc.aio sets INTERNAL; the server's status comes later."""
    ends = asyncio.Event()

    async def exec_(_requests: AsyncIterator[bytes], context: Any) -> None:
        await ends.wait()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "not any more")

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        yield pb.ExecRequest()
        await asyncio.Event().wait()

    async with _server_of(Exec=grpc.stream_stream_rpc_method_handler(exec_)) as transport:
        stream: Any = await transport.converse(_EXEC, requests(), _ENVELOPE)
        await stream._call.wait_for_connection()
        # Does what grpc.aio does after a failed write, before the call has its status.
        stream._call._cython_call.set_internal_error("a write has failed")
        reading = asyncio.ensure_future(stream.read())
        with suppress(TimeoutError):
            async with asyncio.timeout(runs_out(0.05)):
                await asyncio.shield(reading)
        assert not reading.done()
        ends.set()
        async with within(10):
            if code is grpc.StatusCode.OK:
                assert await reading is None
            else:
                with pytest.raises(PermissionDeniedError, match="not any more"):
                    await reading


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED])
async def test_the_responses_before_a_failed_write_are_read(code: grpc.StatusCode) -> None:
    """Core hands out the status after the last response, so both would be lost if nobody read the responses."""
    sent = [pb.ExecResponse(stdout=bytes([number])) for number in range(3)]

    async def exec_(_requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        for each in sent:
            yield each.SerializeToString()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "not any more")

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        while True:
            yield pb.ExecRequest(stdin=b"x" * 16_000)

    async with _server_of(Exec=grpc.stream_stream_rpc_method_handler(exec_)) as transport, within(20):
        stream: Any = await transport.converse(_EXEC, requests(), _ENVELOPE)

        async def write_has_failed() -> bool:
            return bool(stream._call.done())

        await poll_until(write_has_failed)
        for each in sent:
            assert await stream.read() == each
        if code is grpc.StatusCode.OK:
            assert await stream.read() is None
        else:
            with pytest.raises(PermissionDeniedError, match="not any more"):
                await stream.read()


async def test_a_response_that_comes_before_the_last_request_is_returned() -> None:
    async def copy_to(_requests: AsyncIterator[bytes], _context: Any) -> bytes:
        return pb.CopyToResponse(bytes=7).SerializeToString()

    async def requests() -> AsyncIterator[pb.CopyToRequest]:
        while True:
            yield pb.CopyToRequest(data=b"x" * 16_000)

    async with _server_of(CopyTo=grpc.stream_unary_rpc_method_handler(copy_to)) as transport, within(60):
        for _ in range(50):
            answer = await transport.collect(_COPY_TO, requests(), _ENVELOPE)
            assert answer.bytes == 7


async def test_a_call_without_its_one_response_fails() -> None:
    async def copy_to(_requests: AsyncIterator[bytes], _context: Any) -> None:
        """Sends nothing."""

    async def requests() -> AsyncIterator[pb.CopyToRequest]:
        yield pb.CopyToRequest()

    async with _server_of(CopyTo=grpc.stream_stream_rpc_method_handler(copy_to)) as transport, within(20):
        with pytest.raises(PilothouseError) as failed:
            await transport.collect(_COPY_TO, requests(), _ENVELOPE)
        assert failed.value.code.name == "INTERNAL"
