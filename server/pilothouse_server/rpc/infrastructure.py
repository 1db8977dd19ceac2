"""Infrastructure services (health, reflection), which have bounds of their own.

No rule declares them, and they need no log-in. A health check is always served: it takes no seat, and no other call can
push it out; only its request must arrive in time like any other. Health watches and reflection streams are bounded by
address, and a silent reflection stream is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from pilothouse_server.errors import InvalidArgument, PilothouseError
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.fair_queue import FairQueue
from pilothouse_server.rpc import decompression, headers
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.rpc.response_stream import ResponseStream
from pilothouse_server.rpc.status import CODES, STATUS_KEY, rich_status

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
AddressOf = Callable[[Context], str]

SILENT_SECONDS = 30.0


def bounded(inner: Handler, admission: CallAdmission, address_of: AddressOf) -> Handler:
    """Returns the handler of an infrastructure method, within the bounds of such methods."""
    service = _Infrastructure(inner, admission, address_of)
    assert inner.request_deserializer is not None
    how = {
        "request_deserializer": partial(_read, inner.request_deserializer),
        "response_serializer": inner.response_serializer,
    }
    if inner.request_streaming:
        return grpc.stream_stream_rpc_method_handler(service.converse, **how)
    if inner.response_streaming:
        return grpc.stream_stream_rpc_method_handler(service.watch, **how)
    return grpc.stream_unary_rpc_method_handler(service.answer, **how)


def too_large() -> Handler:
    """Returns the handler of an infrastructure call whose headers are too large."""
    return grpc.stream_stream_rpc_method_handler(partial(_refused, None))


def _refusing(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Returns the method, wrapped so that a domain error that it raises ends its call."""

    async def run(self: Any, requests: Any, context: Context) -> Any:
        try:
            return await method(self, requests, context)
        except PilothouseError as error:
            code, message, details = CODES[error.code], error.message, rich_status(error).SerializeToString()
        flow = address_group(self.address_of(context)) if self is not None else None
        stream, remaining = ResponseStream(context), cast("float | None", context.time_remaining())
        del context, requests
        if flow is not None:
            await self.admission.refusal(flow, remaining)
        return await stream.fail(code, message, ((STATUS_KEY, details),))

    return run


@_refusing
async def _refused(_self: object, _requests: object, _context: Context) -> None:
    raise headers.too_large()


class _Infrastructure:
    def __init__(self, inner: Handler, admission: CallAdmission, address_of: AddressOf) -> None:
        self._inner: Any = inner
        self.admission = admission
        self.address_of = address_of

    @_refusing
    async def answer(self, _requests: object, context: Context) -> Any:
        """Serves one request with one response, always."""
        return await self._inner.unary_unary(await self._request(context), context)

    @_refusing
    async def watch(self, _requests: object, context: Context) -> None:
        """Serves one request with a stream."""
        request = await self._request(context)
        # The library only writes to this context.
        watching = self._inner.unary_stream(request, ResponseStream(context))
        await self._seated(self.admission.health_watches, context, watching)

    @_refusing
    async def converse(self, requests: AsyncIterator[Any], context: Context) -> None:
        """Serves a stream with a stream."""

        first = await self._request(context)

        async def answers() -> None:
            stream = ResponseStream(context)
            async for each in self._inner.stream_stream(_until_silent(first, requests), context):
                await stream.write(each)

        await self._seated(self.admission.reflections, context, answers())

    async def _seated(self, queue: FairQueue, context: Context, work: Any) -> None:
        flow = address_group(self.address_of(context))
        try:
            await queue.acquire(flow)
        except PilothouseError:
            work.close()
            raise
        try:
            await work
        finally:
            queue.release(flow)

    async def _request(self, context: Context) -> Any:
        flow = address_group(self.address_of(context))
        request = await self.admission.pending_health_requests.receive(context.read(), flow)
        if request is grpc.aio.EOF:
            raise no_request()
        return _good(request)


def no_request() -> InvalidArgument:
    """Returns the error for a call that ends before its request."""
    return InvalidArgument("the call has no request, or one that is too large", reason="MALFORMED_MESSAGE")


async def _until_silent(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    iterator = aiter(rest)
    while True:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                request = await anext(iterator)
        except (StopAsyncIteration, TimeoutError):
            return
        yield _good(request)


# A stand-in for a message that cannot be parsed: an error within gRPC would end the call with gRPC's own
# text.
_MALFORMED: Final = object()


def _read(deserialize: Callable[[bytes], Any], raw: bytes) -> Any:
    """Returns the message of these bytes, compressed or not.

    None of these methods has a long request.
    """
    try:
        return deserialize(decompression.decompress_if_short(raw))
    except DecodeError:
        return _MALFORMED


def _good(request: Any) -> Any:
    """Returns the message; raises InvalidArgument if its bytes could not be parsed."""
    if request is _MALFORMED:
        raise InvalidArgument(
            "the request cannot be parsed as the message of this method", reason="MALFORMED_MESSAGE"
        )
    return request
