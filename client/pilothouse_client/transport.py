"""The two ways to send a call.

Retries, tokens, pages and resumption are written once, as coroutines over `Transport`.

`AsyncTransport` is grpc.aio. `BlockingTransport` has the same coroutines, but each blocks inside and never
suspends; so a coroutine that awaits nothing else runs to its end in one step (`run`). The blocking client is
therefore the same code as the asynchronous one, and needs no event loop and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio

from pilothouse_client.errors import (
    CancelledError,
    FailedCall,
    PilothouseError,
    UnavailableError,
    error_of,
    from_failed_call,
)
from pilothouse_client.methods import Method, Request, Response
from pilothouse_client.target import Target

Result = TypeVar("Result")
Answer = TypeVar("Answer", covariant=True)
CallMetadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Envelope:
    """The token and the time of a call.

    `timeout` is the seconds until it ends by itself; None means no limit."""

    metadata: CallMetadata
    timeout: float | None


class AnswerStream(Protocol[Answer]):
    """The responses of one streaming call."""

    async def read(self) -> Answer | None:
        """Returns the next response, None at the end. Raises PilothouseError."""

    def cancel(self) -> None:
        """Ends the call; a `read` that waits raises CancelledError."""


class Lock(Protocol):
    """Held by one call at a time."""

    async def acquire(self, timeout: float | None) -> bool:
        """Acquires the lock; returns False if that takes longer than `timeout` seconds (None: no limit)."""

    def release(self) -> None: ...


class Transport(Protocol):
    """How calls are sent. Every error is a PilothouseError."""

    async def unary(
        self, method: Method[Request, Response], request: Request, envelope: Envelope
    ) -> Response: ...

    async def stream(
        self, method: Method[Request, Response], request: Request, envelope: Envelope
    ) -> AnswerStream[Response]: ...

    async def collect(
        self, method: Method[Request, Response], requests: Requests[Request], envelope: Envelope
    ) -> Response:
        """Sends a stream of requests; returns the one response."""

    async def converse(
        self, method: Method[Request, Response], requests: Requests[Request], envelope: Envelope
    ) -> AnswerStream[Response]:
        """Opens a bidirectional stream; `requests` are sent as they come."""

    async def sleep(self, seconds: float) -> None: ...

    async def blocking(self, function: Callable[[], Result]) -> Result:
        """Runs a function that waits for a file or a lock, without blocking the event loop if there is one."""

    def lock(self) -> Lock: ...

    async def close(self) -> None: ...


TransportT = TypeVar("TransportT", bound=Transport)
# The types of a stream of requests; only the asynchronous transport accepts an asynchronous iterable.
Requests = Iterable[Request] | AsyncIterable[Request]


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine over `BlockingTransport` to its end."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine waits for something other than its blocking transport")


@contextlib.contextmanager
def _decoded_errors(address: str) -> Iterator[None]:
    """Raises PilothouseError in place of gRPC's own errors; `address` is the server's."""
    try:
        yield
    except grpc.RpcError as error:
        # Both interfaces raise the call itself or an object with its methods, which the static type does not show.
        raise from_failed_call(cast("FailedCall", error), address) from None


# Seconds before an unreachable server is checked again.
_LOOK_AGAIN_SECONDS = 5.0


class _Explained:
    """Finds out why no connection could be made although a server listens."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._not_before = 0.0

    def _is_due(self, error: UnavailableError) -> bool:
        """Returns whether to check the server now; only gRPC's own error without a connection needs that."""
        now = time.monotonic()
        if error.from_server or not error.never_sent or now < self._not_before:
            return False
        self._not_before = now + _LOOK_AGAIN_SECONDS
        return True

    def blocking(self, error: UnavailableError) -> PilothouseError:
        """Returns the error, or one that explains it."""
        return self._look(error) if self._is_due(error) else error

    async def elsewhere(self, error: UnavailableError) -> PilothouseError:
        """Returns the result of `blocking` without blocking the event loop."""
        return await asyncio.to_thread(self._look, error) if self._is_due(error) else error

    def _look(self, error: UnavailableError) -> PilothouseError:
        # Only a call without a connection needs this module, and it loads the whole of TLS.
        from pilothouse_client.handshake import find_problem

        found = find_problem(self._target)
        if found is None:
            return error
        self._not_before = 0.0
        explained = UnavailableError(error.code, found.message, never_sent=True)
        explained.connection_problem = found.problem
        return explained


class _BlockingLock:
    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def acquire(self, timeout: float | None) -> bool:
        # `threading` takes -1 for no limit.
        return self._lock.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))

    def release(self) -> None:
        self._lock.release()


class _BlockingStream(Generic[Response]):
    def __init__(self, call: Any, address: str, explained: _Explained) -> None:
        self._call = call
        self._address = address
        self._explained = explained

    async def read(self) -> Response | None:
        try:
            with _decoded_errors(self._address):
                return next(self._call, None)
        except UnavailableError as error:
            raise self._explained.blocking(error) from None

    def cancel(self) -> None:
        self._call.cancel()


class BlockingTransport:
    """Calls that block the thread; several threads may share the transport."""

    def __init__(self, target: Target) -> None:
        self._address = target.address
        self._explained = _Explained(target)
        self._channel = (
            grpc.insecure_channel(target.uri, target.options())
            if target.tls is None
            else grpc.secure_channel(target.uri, target.tls.credentials(), target.options())
        )
        self._callables: dict[str, Any] = {}
        self._closed = threading.Event()

    def _callable(self, method: Method[Any, Any], make: Callable[..., Any]) -> Any:
        made = self._callables.get(method.path)
        if made is None:
            made = self._callables[method.path] = make(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return made

    async def unary(
        self, method: Method[Request, Response], request: Request, envelope: Envelope
    ) -> Response:
        self._check_open()
        call = self._callable(method, self._channel.unary_unary)
        try:
            with _decoded_errors(self._address):
                return call(request, timeout=envelope.timeout, metadata=envelope.metadata)  # type: ignore[no-any-return]
        except UnavailableError as error:
            raise self._explained.blocking(error) from None

    async def stream(
        self, method: Method[Request, Response], request: Request, envelope: Envelope
    ) -> AnswerStream[Response]:
        self._check_open()
        call = self._callable(method, self._channel.unary_stream)
        return _BlockingStream[Response](
            call(request, timeout=envelope.timeout, metadata=envelope.metadata),
            self._address,
            self._explained,
        )

    async def collect(
        self, method: Method[Request, Response], requests: Requests[Request], envelope: Envelope
    ) -> Response:
        self._check_open()
        call = self._callable(method, self._channel.stream_unary)
        if not isinstance(requests, Iterable):
            raise TypeError("a blocking client needs a synchronous iterable of requests")
        try:
            with _decoded_errors(self._address):
                return call(iter(requests), timeout=envelope.timeout, metadata=envelope.metadata)  # type: ignore[no-any-return]
        except UnavailableError as error:
            raise self._explained.blocking(error) from None

    async def converse(
        self, method: Method[Request, Response], requests: Requests[Request], envelope: Envelope
    ) -> AnswerStream[Response]:
        self._check_open()
        call = self._callable(method, self._channel.stream_stream)
        if not isinstance(requests, Iterable):
            raise TypeError("a blocking client needs a synchronous iterable of requests")
        stream = call(iter(requests), timeout=envelope.timeout, metadata=envelope.metadata)
        return _BlockingStream[Response](stream, self._address, self._explained)

    async def sleep(self, seconds: float) -> None:
        # The sleep ends when another thread closes the client.
        if self._closed.wait(seconds):
            self._check_open()

    async def blocking(self, function: Callable[[], Result]) -> Result:
        return function()

    def lock(self) -> Lock:
        return _BlockingLock()

    async def close(self) -> None:
        self._closed.set()
        self._channel.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise CancelledError(grpc.StatusCode.CANCELLED, "the client is closed", never_sent=True)


@contextlib.contextmanager
def _decoded_async_errors(address: str) -> Iterator[None]:
    """As `_decoded_errors`, for grpc.aio.

    grpc.aio raises asyncio's CancelledError both when the task is cancelled and when the call (or channel) is. Only the
    first is the caller's own cancellation, which is passed on unchanged.
    """
    try:
        with _decoded_errors(address):
            yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            raise CancelledError(grpc.StatusCode.CANCELLED, "the call was closed") from None
        raise


# grpc.aio's details of a call that ended while it was writing a request.
_WRITE_FAILED = "Internal error from Core"
# Seconds to wait for the server's own status, which follows a failed write as soon as the event loop runs.
_STATUS_SECONDS = 2.0


class _Ending:
    """The status with which the server ended a call that sends a stream.

    If a request was being written, grpc.aio reports INTERNAL instead (https://github.com/grpc/grpc/issues/36066): for
    good, or until the status arrives.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._status: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def _note(self, call: Any) -> None:
        if self._status is None:
            # The call is over, so these coroutines do not suspend.
            trailing, details = run(call.trailing_metadata()), run(call.details())
            self._status = grpc.aio.AioRpcError(run(call.code()), grpc.aio.Metadata(), trailing, details)

    async def of(self, raised: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Returns the error that grpc.aio has `raised`, or the status that it replaced."""
        if raised.details() != _WRITE_FAILED:
            return raised
        if self._status is None or self._status.details() == _WRITE_FAILED:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_SECONDS):
                    while await self._call.details() == _WRITE_FAILED:  # noqa: ASYNC110 - it has no callback
                        await asyncio.sleep(0.01)
            self._status = None
            self._note(self._call)
        return self._status or raised


class _AsyncStream(Generic[Response]):
    def __init__(self, call: Any, address: str, explained: _Explained) -> None:
        self._call = call
        # The call's own `read` raises as soon as a write has failed, although responses may still have to be read.
        self._answers = aiter(call)
        self._ending = _Ending(call)
        self._address = address
        self._explained = explained

    async def read(self) -> Response | None:
        try:
            with _decoded_async_errors(self._address):
                return await self._next()
        except UnavailableError as error:
            raise await self._explained.elsewhere(error) from None

    async def _next(self) -> Response | None:
        try:
            return await anext(self._answers, None)
        except grpc.aio.AioRpcError as raised:
            status = await self._ending.of(raised)
            if status.code() is grpc.StatusCode.OK:
                return None
            raise status from None

    def cancel(self) -> None:
        self._call.cancel()


class _AsyncLock:
    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def acquire(self, timeout: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                return await self._lock.acquire()
        except TimeoutError:
            return False

    def release(self) -> None:
        self._lock.release()


class AsyncTransport:
    """Calls of grpc.aio; belongs to the event loop of its first call."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._address = target.address
        self._explained = _Explained(target)
        self._channel: grpc.aio.Channel | None = None
        self._callables: dict[str, Any] = {}
        self._closed = False

    def _open_channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise CancelledError(grpc.StatusCode.CANCELLED, "the client is closed", never_sent=True)
        if self._channel is None:
            # Created late, because a channel binds to the event loop that runs when it is created.
            target = self._target
            self._channel = (
                grpc.aio.insecure_channel(target.uri, target.options())
                if target.tls is None
                else grpc.aio.secure_channel(target.uri, target.tls.credentials(), target.options())
            )
        return self._channel

    def _callable(self, method: Method[Any, Any], kind: str) -> Any:
        channel = self._open_channel()
        made = self._callables.get(method.path)
        if made is None:
            made = self._callables[method.path] = getattr(channel, kind)(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return made

    async def unary(
        self, method: Method[Request, Response], request: Request, envelope: Envelope
    ) -> Response:
        call = self._callable(method, "unary_unary")
        try:
            with _decoded_async_errors(self._address):
                return await call(request, timeout=envelope.timeout, metadata=envelope.metadata)  # type: ignore[no-any-return]
        except UnavailableError as error:
            raise await self._explained.elsewhere(error) from None

    async def stream(
        self, method: Method[Request, Response], request: Request, envelope: Envelope
    ) -> AnswerStream[Response]:
        call = self._callable(method, "unary_stream")
        return _AsyncStream[Response](
            call(request, timeout=envelope.timeout, metadata=envelope.metadata),
            self._address,
            self._explained,
        )

    async def collect(
        self, method: Method[Request, Response], requests: Requests[Request], envelope: Envelope
    ) -> Response:
        # The same on the wire as "stream_unary", whose response grpc.aio discards if a write has failed.
        stream = await self.converse(method, requests, envelope)
        answer = await stream.read()
        if answer is None or await stream.read() is not None:
            stream.cancel()
            raise error_of(grpc.StatusCode.INTERNAL, "the server must send exactly one response")
        return answer

    async def converse(
        self, method: Method[Request, Response], requests: Requests[Request], envelope: Envelope
    ) -> AnswerStream[Response]:
        call = self._callable(method, "stream_stream")
        return _AsyncStream[Response](
            call(requests, timeout=envelope.timeout, metadata=envelope.metadata),
            self._address,
            self._explained,
        )

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def blocking(self, function: Callable[[], Result]) -> Result:
        return await asyncio.to_thread(function)

    def lock(self) -> Lock:
        return _AsyncLock()

    async def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            await self._channel.close()
