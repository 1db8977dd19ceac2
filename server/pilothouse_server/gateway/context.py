"""A stand-in for gRPC's context of a call, with which the pipeline serves calls by HTTP.

The pipeline reads the address of the caller, the deadline and the requests from it, and sends responses through it. A
call ends as gRPC's do: with a status and trailing metadata, which the caller of `run` sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from pilothouse_server.errors import PilothouseError
from pilothouse_server.rpc.pipeline import Pipeline

# Prefixes of the trailing metadata that is sent; other metadata does not leave the server.
_SENT: Final = ("grpc-status-details-bin", "pilothouse-")

Receive = Callable[[], Awaitable[bytes | None]]
Send = Callable[[bytes], Awaitable[None]]
Metadata = tuple[tuple[str, str], ...]


class _Ended(Exception):
    """A call ended with an error, which its context has."""


class CallContext:
    """The context of one call.

    Args:
        peer: the address of the connection; '' for a Unix socket.
        seconds: until the deadline; None if there is none.
        receive: returns the next request; None after the last.
        send: sends a response of a stream.
    """

    def __init__(self, peer: str, seconds: float | None, receive: Receive, send: Send) -> None:
        self._peer = peer
        self._deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._receive = receive
        self._send = send
        self.code = grpc.StatusCode.OK
        self.message = ""
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()

    @property
    def trailing(self) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata that is sent with the status."""
        return tuple(pair for pair in self._trailing if pair[0].startswith(_SENT))

    def peer(self) -> str:
        """Returns the address in gRPC's form."""
        if not self._peer:
            return "unix:"
        return f"ipv6:[{self._peer}]:0" if ":" in self._peer else f"ipv4:{self._peer}:0"

    def time_remaining(self) -> float | None:
        """Returns the seconds until the deadline; None if there is none."""
        return (
            None if self._deadline is None else max(0.0, self._deadline - asyncio.get_running_loop().time())
        )

    def auth_context(self) -> Mapping[str, Any]:
        """Returns no facts about a client certificate, because this port requests none."""
        return {}

    async def read(self) -> Any:
        """Returns the next request, EOF after the last."""
        found = await self._receive()
        return grpc.aio.EOF if found is None else found

    async def send_initial_metadata(self, _metadata: object) -> None:
        """Does nothing, because the headers are sent with the first response."""

    async def write(self, answer: bytes) -> None:
        """Sends a response of a stream."""
        await self._send(answer)

    def set_trailing_metadata(self, pairs: tuple[tuple[str, str | bytes], ...]) -> None:
        """Stores the metadata that the call ends with."""
        self._trailing = pairs

    async def abort(self, code: grpc.StatusCode, message: str) -> NoReturn:
        """Ends the call with an error."""
        self.code, self.message = code, message
        raise _Ended

    async def run(
        self, pipeline: Pipeline, method: str, metadata: Metadata, refusal: PilothouseError | None = None
    ) -> bytes | None:
        """Serves the call; returns the response of a unary call.

        `code` and `trailing` have its outcome.

        `refusal`: the rule of this port that the call breaks; the call is recorded with it, and not executed.

        Raises CancelledError if its client is gone.
        """
        handler: Any = pipeline.handler_by_http(method, metadata, refusal)
        serve = handler.stream_stream if handler.response_streaming else handler.stream_unary
        limit = asyncio.timeout(self.time_remaining())
        try:
            async with limit:
                answer: bytes | None = await serve(None, self)
                return answer
        except _Ended:
            return None
        except TimeoutError:
            if not limit.expired():
                raise
            self.code, self.message = grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed"
            return None
