"""The requests of one call, as they come from its client.

gRPC's reader reports the end of the client's requests, the end of the call, and a request that gRPC itself refuses in
the same way: no more messages. Only the first comes from the client, and the server acts on it. gRPC handles the other
two itself, and cancels the call a moment later. The record of the call must name the code that its caller gets. So this
module detects a refusal by gRPC through the future that its reader awaits: that future fails only in this case, but the
reader does not raise its error. Whether a call without a request is over shows only when the server sends something.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.rpc.infrastructure import no_request

if TYPE_CHECKING:
    from pilothouse_server.rpc.call import Call

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
T = TypeVar("T")


class RequestStream:
    """The requests of one call."""

    __slots__ = ("_call", "_context")

    def __init__(self, call: Call, context: Context) -> None:
        self._call = call
        self._context = context

    async def read(self) -> Any:
        """Returns the next request's bytes; EOF if the client sends no more.

        Raises ResourceExhausted (MESSAGE_TOO_LARGE) if gRPC refuses the request, and so the call.
        """
        reading = _Reading(self._context.read())
        try:
            message = await reading
        finally:
            # Also set if the call is cancelled in the same iteration of the event loop.
            if reading.failed:
                self._call.refused_by_grpc = True
        if reading.failed:
            raise _refused()
        return message

    async def rest(self) -> AsyncIterator[bytes]:
        """Yields the requests of a stream after the first. Raises as `read`."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def end_without_request(self) -> NoReturn:
        """Raises InvalidArgument for a call that has no request, and CancelledError if the call is over."""
        try:
            await self._context.send_initial_metadata(())
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None
        raise no_request()


def _refused() -> ResourceExhausted:
    return ResourceExhausted(
        "the request exceeds the maximum message size of this server", reason="MESSAGE_TOO_LARGE"
    )


class _Reading:
    """Awaits the result of one of gRPC's coroutines.

    `failed` is whether an object that it awaited has failed.
    """

    __slots__ = ("_work", "failed")

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self.failed = False

    def __await__(self) -> Generator[Any, None, Any]:
        steps = self._work.__await__()
        step: Callable[[], Any] = partial(next, steps)
        try:
            while True:
                awaited = step()
                try:
                    yield awaited
                except grpc.aio.InternalError as error:
                    step = partial(steps.throw, error)
                else:
                    step = partial(next, steps)
                finally:
                    self.failed = self.failed or _has_failed(awaited)
        except StopIteration as end:
            return end.value
        finally:
            steps.close()


def _has_failed(awaited: object) -> bool:
    if not isinstance(awaited, asyncio.Future) or not awaited.done() or awaited.cancelled():
        return False
    return awaited.exception() is not None
