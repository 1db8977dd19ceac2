"""The status of a call that the server ends while the client writes a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc.aio
import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.errors import PermissionDeniedError
from pilothouse_client.methods import method_of
from pilothouse_client.target import Target
from pilothouse_client.transport import AsyncTransport, Envelope
from tests.waiting import runs_out, within

_EXEC = method_of(pb.ExecRequest, pb.ExecResponse)


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED])
async def test_the_client_waits_for_the_servers_status(code: grpc.StatusCode) -> None:
    """When a write fails before the call has a status, grpc.aio sets INTERNAL; the server's status comes later."""
    ends = asyncio.Event()

    async def exec_(_requests: AsyncIterator[bytes], context: Any) -> None:
        await ends.wait()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "not any more")

    handlers: Any = {"Exec": grpc.stream_stream_rpc_method_handler(exec_)}
    service = _EXEC.path.split("/")[1]
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = AsyncTransport(Target(f"127.0.0.1:{port}", None))

    async def requests() -> AsyncIterator[pb.ExecRequest]:
        yield pb.ExecRequest()
        await asyncio.Event().wait()

    try:
        stream: Any = await transport.converse(_EXEC, requests(), Envelope((), None))
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
    finally:
        await transport.close()
        await server.stop(None)
