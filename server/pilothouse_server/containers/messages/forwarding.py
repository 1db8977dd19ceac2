"""Passes bytes between the caller's stream and a pod, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.errors import invalid
from pilothouse_server.kubernetes.port_forward import ForwardedPort
from pilothouse_server.rpc.call import Call
from pilothouse_server.runtime.tasks import cancel_and_wait


async def forwarded_bytes(
    call: Call, requests: AsyncIterator[pb.PortForwardRequest], opened: ForwardedPort
) -> AsyncGenerator[bytes, None]:
    """Yields the port's bytes and passes the caller's on, until the port is closed."""
    counted = {"bytes_sent": 0, "bytes_received": 0}

    async def feed() -> None:
        first = True
        async for request in requests:
            if request.HasField("start") and not first:
                raise invalid("start", "is only allowed in the first message")
            first = False
            if request.data:
                counted["bytes_sent"] += len(request.data)
                await opened.write(request.data)

    feeding = asyncio.create_task(feed(), name="forwarded input")
    outputs = opened.output()
    try:
        while True:
            output = asyncio.ensure_future(anext(outputs, None))
            try:
                while not output.done():
                    await asyncio.wait(
                        {output} if feeding.done() else {output, feeding}, return_when=asyncio.FIRST_COMPLETED
                    )
                    if feeding.done() and not output.done():
                        # An error of the input ends the call; the end of the input does not.
                        feeding.result()
            finally:
                if not output.done():
                    await cancel_and_wait(output)
            if (data := output.result()) is None:
                call.complete = True
                return
            counted["bytes_received"] += len(data)
            yield data
    finally:
        await cancel_and_wait(feeding)
        await outputs.aclose()
        call.facts.metadata.update(counted)


async def archive_parts(requests: AsyncIterator[pb.CopyToRequest]) -> AsyncIterator[bytes]:
    """Yields the parts of an archive that a caller sends."""
    first = True
    async for request in requests:
        if request.HasField("start") and not first:
            raise invalid("start", "is only allowed in the first message")
        first = False
        if request.data:
            yield request.data
