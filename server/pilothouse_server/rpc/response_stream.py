"""The responses of one call, and its end, as they are sent to its client.

A client may leave while something is being sent to it. gRPC then fails the send before it cancels the call. Such a call
has not failed; it ends as cancelled.

gRPC notes that the headers of a call are sent when the first response has been taken. If a stream's first response
waits for its reader and the stream is ended during that time, gRPC would send the headers once more with the status,
refuse that, and never end the call. So a stream sends its headers by themselves, before its first response. They wait
for no reader.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# Pairs of a name and its text or bytes.
Trailing: TypeAlias = tuple[tuple[str, Any], ...]


class ResponseStream:
    """The responses of one call.

    Its methods raise CancelledError if the client is gone.
    """

    __slots__ = ("_context", "_headers_began", "_headers_sent")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._headers_began = self._headers_sent = False

    async def write(self, answer: Any) -> None:
        """Returns once gRPC has taken a response of a stream."""
        try:
            if not self._headers_began:
                self._headers_began = True
                await self._context.send_initial_metadata(())
                self._headers_sent = True
            await self._context.write(answer)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None

    async def fail(self, code: grpc.StatusCode, message: str, trailing: Trailing) -> NoReturn:
        """Ends the call with an error. Nothing more can be sent through this object.

        gRPC stores the error that `abort` raises with the call, and the error keeps the frames that it
        passes. If one of these frames refers to the call (its context or its reader), that is a cycle, which
        stays until the garbage collector runs. So the caller of this method first drops its references to
        them.
        """
        if self._headers_began and not self._headers_sent:
            # Not even the headers could be sent: the connection accepts no data, and ends with all its calls.
            raise asyncio.CancelledError
        self._context.set_trailing_metadata(trailing)
        abort = [self._context.abort]
        del self._context
        try:
            await abort.pop()(code, message)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None
