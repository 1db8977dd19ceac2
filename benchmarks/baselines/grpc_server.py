"""A bare `grpc.aio` server: returns one prepared message, streams prepared bytes on command, or does nothing.

Get      unary: parses the request, returns the prepared message, serialized for each call
Create   unary: parses the request, returns the container in it
Stream   a stream that stays open; `send` writes the same prepared bytes to every open stream
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from typing import Any

import grpc
import grpc.aio

from benchmarks.child import answering
from pilothouse.container.v1 import container_pb2 as pb

SERVICE = "bare.Server"
GET = f"/{SERVICE}/Get"
CREATE = f"/{SERVICE}/Create"
STREAM = f"/{SERVICE}/Stream"


class BareServer:
    """One server in this process."""

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None
        self._answer = pb.GetContainerResponse()
        self._messages: list[bytes] = []
        self._round = 0
        self._go = asyncio.Condition()
        self._open = 0

    async def start(self, answer: str = "") -> str:
        """Listens, and returns the address; `answer` is the message of Get in base64."""
        self._answer = pb.GetContainerResponse.FromString(b64decode(answer))
        self._server = grpc.aio.server()
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Get": grpc.unary_unary_rpc_method_handler(
                self._get,
                request_deserializer=pb.GetContainerRequest.FromString,
                response_serializer=pb.GetContainerResponse.SerializeToString,
            ),
            "Create": grpc.unary_unary_rpc_method_handler(
                self._create,
                request_deserializer=pb.CreateContainerRequest.FromString,
                response_serializer=pb.CreateContainerResponse.SerializeToString,
            ),
            "Stream": grpc.unary_stream_rpc_method_handler(self._stream),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def send(self, message: str, count: int) -> float:
        """Makes every open stream write the message (base64) `count` times; returns the time when it began."""
        self._messages = [b64decode(message)] * count
        self._round += 1
        began = time.monotonic()
        async with self._go:
            self._go.notify_all()
        return began

    async def _get(self, _request: Any, _context: Any) -> pb.GetContainerResponse:
        return self._answer

    async def _create(self, request: pb.CreateContainerRequest, _context: Any) -> pb.CreateContainerResponse:
        return pb.CreateContainerResponse(container=request.container)

    async def _stream(self, _request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        seen = self._round
        # The first message shows that the stream is established, as in a watch.
        await context.write(b"\x08\x04")
        while True:
            async with self._go:
                await self._go.wait_for(lambda seen=seen: self._round != seen)  # type: ignore[misc]
            seen = self._round
            for message in self._messages:
                await context.write(message)


def main() -> None:
    """Runs the process."""
    server = BareServer()
    answering({"start": server.start, "send": server.send})


if __name__ == "__main__":
    main()
