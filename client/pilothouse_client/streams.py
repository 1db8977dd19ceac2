"""Streams that resume by themselves.

A watch remembers the resume token of the last response that it returned. When the stream is cut, the watch opens
another stream with that token, and the consumer sees no gap and no duplicate. If that is impossible, the consumer gets
`ChangeKind.RESTARTED`: it must drop its state, and the current state follows. That happens when the token is older
than the server's stored events, the database went back to an earlier state, the caller's visible namespaces have
changed, or another namespace now has the name (OUT_OF_RANGE). It also happens when the cut came before SYNCED, that is
before there was any token.

A stream that has not begun fails like any other call: when the time of a read is over, or the attempts of the retry
policy are used up. A stream that has begun is retried for up to `RetryPolicy.watch_patience`, and the option
`on_interruption` is called unless the first attempt succeeds.

`EndlessStream` is for streams whose responses are not replayed (usage): after a cut it opens a new stream.
`PlainStream` is for streams that have an end (export): a cut is an error.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import grpc

from pilothouse_client.connection import ServerConnection
from pilothouse_client.errors import PilothouseError, UnavailableError
from pilothouse_client.methods import Method, Pace, Request, Response
from pilothouse_client.retry import Deadline
from pilothouse_client.tokens import Tokens
from pilothouse_client.transport import AnswerStream, Requests, TransportT

Resource = TypeVar("Resource")


class ChangeKind(enum.Enum):
    """The kind of a change; `RESTARTED` is the client's own, the others are `pilothouse.resource.v1.ChangeType`.

    >>> with client.containers.watch(namespace=namespace) as changes:
    ...     next(changes).kind is ChangeKind.SYNCED
    True
    """

    ADDED = 1
    MODIFIED = 2
    DELETED = 3
    SYNCED = 4
    BOOKMARK = 5
    RESTARTED = -1


@dataclass(frozen=True, slots=True)
class Change(Generic[Resource]):
    """One response of a watch.

    `resource` is an empty message for SYNCED, BOOKMARK and RESTARTED. `revision` is the commit order, 0 for the current
    state; for SYNCED it is a lower bound, because the state may contain later changes, which are not sent again. With
    `resume_token` another watch continues after this response; it is empty before SYNCED. `reason` explains a
    RESTARTED. `server_time`: the watch has returned every change that was committed before this time, by the clock that
    sets the times of resources; None before SYNCED. `resumed`: the first response after the stream was cut.

    >>> web = client.containers.create(container=Container(namespace=namespace, name="web", image="nginx"))
    >>> with client.containers.watch(namespace=namespace) as changes:
    ...     change: Change[Container] = next(changes)
    >>> change.kind.name, change.resource.name
    ('ADDED', 'web')
    """

    kind: ChangeKind
    resource: Resource
    revision: int = 0
    resume_token: str = ""
    reason: str = ""
    server_time: datetime | None = None
    resumed: bool = False


class _Reopening(Generic[TransportT, Request, Response]):
    """The current stream, which is reopened after a cut, with backoff, within the retry policy and the deadline."""

    def __init__(
        self, connection: ServerConnection[TransportT], method: Method[Request, Response], request: Request
    ) -> None:
        self._connection = connection
        self._method = method
        self._request = method.request()
        self._request.CopyFrom(request)
        self._deadline = Deadline(connection.options.timeout)
        self._stream: AnswerStream[Response] | None = None
        self._times_opened = 0
        self._tokens: Tokens | None = None
        self._closed = False
        self._answered = False
        # Whether the stream is retried for `watch_patience` instead of the time of a call.
        self._patient = False
        self._failures = 0
        self._failing_since = 0.0
        self._never_sent = True
        self._renewed = False

    def close(self) -> None:
        """Ends the stream; also from another thread or task while one waits for the next response."""
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()

    def _is_closed(self) -> bool:
        # A method, because a type checker assumes that an attribute stays unchanged, but another thread may set it.
        return self._closed

    async def _read(self) -> Response:
        """Returns the next response.

        Raises StopAsyncIteration once closed, PilothouseError if it cannot continue."""
        while not self._is_closed():
            try:
                if self._stream is None:
                    self._answered = False
                    self._stream, self._tokens = await self._connection.open_stream(
                        self._method, self._request, self._deadline
                    )
                    self._times_opened += 1
                    if self._is_closed():  # by another thread, which found no stream to cancel
                        self._stream.cancel()
                answer = await self._stream.read()
                if answer is None:
                    self._at_end()
                    continue
            except PilothouseError as error:
                self._stream = None
                if self._is_closed():
                    break
                # An attempt before this one may have reached the server.
                error.never_sent = self._never_sent = self._never_sent and error.never_sent
                await self._recover(error)
            else:
                self._note_answer()
                return answer
        raise StopAsyncIteration

    def _note_answer(self) -> None:
        if self._patient and self._failures > 1:
            self._connection.options.on_interruption(None)
        self._answered, self._failures, self._renewed = True, 0, False
        self._never_sent = False
        self._patient = self._is_endless()

    def _is_endless(self) -> bool:
        return True

    def _at_end(self) -> None:
        # These streams have no end: a server that ends one is shutting down.
        raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")

    async def _recover(self, error: PilothouseError) -> None:
        """Waits until another stream may be opened; raises the error if it may not."""
        if error.code is grpc.StatusCode.UNAUTHENTICATED and not self._renewed:
            self._renewed = True
            if await self._connection.credentials.after_rejection(self._tokens, self._deadline):
                return
            raise error
        if not self._is_cut(error):
            raise error
        self._failures += 1
        if self._failures == 1:
            self._failing_since = time.monotonic()
        options = self._connection.options
        least = error.retry_delay or 0.0
        delay = max(least, options.retry.backoff(self._failures))
        fitting = options.retry.fitting(delay, least, self._seconds_left())
        if fitting is None:
            raise error
        if not self._patient:
            options.on_retry(error, self._failures)
        elif self._failures == 2:
            options.on_interruption(error)
        await self._connection.transport.sleep(fitting)

    def _seconds_left(self) -> float:
        """Returns the seconds within which another stream may be opened; 0 if none may be."""
        options = self._connection.options
        over = options.retry.attempts == 1 if self._patient else options.retry.exhausted(self._failures)
        if over:
            return 0.0
        patience = options.retry.watch_patience if self._patient else options.timeout_of(Pace.READ)
        left = self._deadline.at_most(self._failing_since + patience - time.monotonic()).left()
        return 0.0 if left is None else left

    def _is_cut(self, error: PilothouseError) -> bool:
        if error.code is grpc.StatusCode.UNAVAILABLE:
            return not error.connection_problem
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return error.reason == "SLOW_CONSUMER" or error.retry_delay is not None
        # A proxy or a broken connection ends a stream with an arbitrary code, but without a reason.
        midway = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
        if self._deadline.left() is None:
            midway.add(grpc.StatusCode.DEADLINE_EXCEEDED)
        # A server that shuts down also cuts streams that are reopened at that moment, before their first response.
        begun = self._answered or self._patient
        return begun and not error.from_server and error.code in midway


class WatchStream(
    _Reopening[TransportT, Request, Response], Generic[TransportT, Request, Response, Resource]
):
    """A watch over one noun or several: responses have `change_type`, `revision` and `resume_token`."""

    def __init__(
        self,
        connection: ServerConnection[TransportT],
        method: Method[Request, Response],
        request: Request,
        resource_of: Callable[[Response], Resource],
    ) -> None:
        super().__init__(connection, method, request)
        self._resource_of = resource_of
        self._resume_token: str = getattr(request, "resume_token", "")
        self._delivered = False
        self._opening_before = 1

    @property
    def resume_token(self) -> str:
        """The token from which a watch continues after the last response.

        Empty before SYNCED."""
        return self._resume_token

    async def next(self) -> Change[Resource]:
        """Returns the next change. Raises StopAsyncIteration once closed, PilothouseError if it cannot continue."""
        try:
            answer: Any = await self._read()
        except _Restart as restart:
            return Change(
                ChangeKind.RESTARTED, self._resource_of(self._method.response()), reason=str(restart)
            )
        self._delivered = True
        if answer.resume_token:
            self._resume_token = self._set_token(answer.resume_token)
        resumed, self._opening_before = self._times_opened != self._opening_before, self._times_opened
        return Change(
            _kind_of(answer.change_type),
            self._resource_of(answer),
            int(answer.revision),
            answer.resume_token,
            server_time=answer.server_time.ToDatetime(UTC) if answer.HasField("server_time") else None,
            resumed=resumed,
        )

    async def _recover(self, error: PilothouseError) -> None:
        if error.code is grpc.StatusCode.OUT_OF_RANGE and self._resume_token:
            self._resume_token = self._set_token("")
            raise _Restart(error.message)
        await super()._recover(error)
        if self._delivered and not self._resume_token:
            self._delivered = False
            raise _Restart("the stream was cut before the server had sent the whole state")

    def _set_token(self, token: str) -> str:
        setattr(self._request, "resume_token", token)  # noqa: B010 - not a field of every message
        for scope in getattr(self._request, "scopes", ()):
            # In a watch of several nouns, a token means that each scope has its state or has caught up with its list.
            scope.initial_state = False
            scope.resume_token = ""
        return token


class _Restart(Exception):
    """The watch begins again; the text gives the reason."""


def _kind_of(change_type: int) -> ChangeKind:
    try:
        return ChangeKind(change_type)
    except ValueError:
        # A newer server may send more kinds. For every kind, the attached resource is the current one.
        return ChangeKind.MODIFIED


class EndlessStream(_Reopening[TransportT, Request, Response], Generic[TransportT, Request, Response]):
    """An endless stream. Its responses are not replayed: after a cut some may be missing."""

    async def next(self) -> Response:
        """Returns the next response.

        Raises StopAsyncIteration once closed, PilothouseError if it cannot continue."""
        return await self._read()


class ResumingStream(_Reopening[TransportT, Request, Response], Generic[TransportT, Request, Response]):
    """A stream with an end. Its responses carry a `resume_token`: after a cut it continues after the last one."""

    async def next(self) -> Response:
        """Returns the next response.

        Raises StopAsyncIteration at the end, PilothouseError after a failure."""
        answer: Any = await self._read()
        if answer.resume_token:
            setattr(self._request, "resume_token", answer.resume_token)  # noqa: B010 - not a field of every message
        return answer  # type: ignore[no-any-return]

    def _is_endless(self) -> bool:
        # The caller waits for the end of a stream that does not follow, so it is retried only as long as a call.
        return bool(getattr(self._request, "follow", True))

    def _at_end(self) -> None:
        self._closed = True


class PlainStream(_Reopening[TransportT, Request, Response], Generic[TransportT, Request, Response]):
    """A stream that ends. A failure before the first response is retried like a call; a later one is raised."""

    async def next(self) -> Response:
        """Returns the next response.

        Raises StopAsyncIteration at the end, PilothouseError after a failure."""
        return await self._read()

    def _at_end(self) -> None:
        self._closed = True

    async def _recover(self, error: PilothouseError) -> None:
        try:
            # Another stream would return the responses before the cut again.
            if self._answered:
                raise error
            await super()._recover(error)
        except PilothouseError:
            self._closed = True
            raise


class Conversation(Generic[TransportT, Request, Response]):
    """A bidirectional stream, opened when its first response is read; a cut is an error."""

    def __init__(
        self,
        connection: ServerConnection[TransportT],
        method: Method[Request, Response],
        requests: Requests[Request],
    ) -> None:
        self._connection = connection
        self._method = method
        self._requests = requests
        self._stream: AnswerStream[Response] | None = None
        self._closed = False

    def close(self) -> None:
        """Ends the call; also from another thread or task."""
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()

    async def next(self) -> Response:
        """Returns the next response.

        Raises StopAsyncIteration at the end, PilothouseError after a failure."""
        if self._stream is None and not self._closed:
            self._stream = await self._connection.converse(self._method, self._requests)
        answer = None
        if self._stream is not None and not self._closed:
            answer = await self._stream.read()
        if answer is None:
            self._closed = True
            raise StopAsyncIteration
        return answer
