"""One call from beginning to end: token, deadline, retries, renewal.

A call that needs a token takes the one at hand, renewed first if most of its life has passed. UNAUTHENTICATED
renews once and repeats: whoever finds that another call has renewed meanwhile just takes the new token.
Renewal is a refresh, or else a log-in if the client was given a password. One deadline covers all attempts
and waits of a call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Generic

import grpc

from pilothouse.identity.v1 import identity_pb2
from pilothouse_client.errors import (
    DeadlineExceededError,
    PilothouseError,
    UnauthenticatedError,
    UnavailableError,
)
from pilothouse_client.methods import Method, Pace, Request, Response, method_of
from pilothouse_client.retry import DEFAULT_DEADLINES, DEFAULT_RETRY, Deadlines, RetryPolicy
from pilothouse_client.tokens import Tokens, TokenStore, tokens_of
from pilothouse_client.transport import AnswerStream, CallMetadata, Requests, TransportT, monotonic

_LOGIN = method_of(identity_pb2.LoginRequest, identity_pb2.LoginResponse)
_LOGOUT = method_of(identity_pb2.LogoutRequest, identity_pb2.LogoutResponse)
_REFRESH = method_of(identity_pb2.RefreshSessionRequest, identity_pb2.RefreshSessionResponse)


# Called with what keeps a stream from going on, and with None once it goes on.
Interruption = Callable[[PilothouseError | None], object]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls are made. `timeout` (seconds, for the whole call with its retries; for a stream, its whole
    life) replaces `deadlines`; None leaves each call its default and streams unlimited.
    `on_interruption` hears that a stream which has begun waits to go on."""

    timeout: float | None = None
    deadlines: Deadlines = DEFAULT_DEADLINES
    retry: RetryPolicy = DEFAULT_RETRY
    on_interruption: Interruption = lambda _error: None

    def timeout_of(self, pace: Pace) -> float:
        if self.timeout is not None:
            return self.timeout
        return {
            Pace.READ: self.deadlines.read,
            Pace.MUTATION: self.deadlines.mutation,
            Pace.CLUSTER: self.deadlines.cluster,
        }[pace]


@dataclass(frozen=True, slots=True)
class Password:
    """A user who can log in again when the session has ended."""

    username: str
    password: str = field(repr=False)


class Deadline:
    """What is left of the seconds given; None is endless."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, never negative; None if endless."""
        return None if self._end is None else max(0.0, self._end - monotonic())

    def allows(self, delay: float) -> bool:
        """Whether something can still be done after `delay` seconds."""
        left = self.left()
        return left is None or delay < left


class Credentials(Generic[TransportT]):
    """The token of a client, renewed as needed, by one call at a time."""

    def __init__(
        self, transport: TransportT, store: TokenStore, password: Password | None, options: CallOptions
    ) -> None:
        self._transport = transport
        self._store = store
        self._password = password
        self._options = options
        self._lock = transport.lock()
        # What the store last said. It is asked again under `exclusive`; until then the server tells if it is
        # outdated.
        self._tokens: Tokens | None = None

    async def current(self) -> Tokens | None:
        """The tokens for the next call; None if there are none. Logs in the first time, renews when it is
        due."""
        if self._tokens is None:
            self._tokens = await self._transport.blocking(self._store.load)
        tokens = self._tokens
        if tokens is None:
            return await self._renew(None) if self._password else None
        if not tokens.renewal_due(time.time()):
            return tokens
        try:
            return await self._renew(tokens)
        except UnavailableError:
            # Early renewal is a courtesy: while the old token lives, it serves.
            if time.time() < tokens.access_expire:
                return tokens
            raise

    async def after_rejection(self, rejected: Tokens | None) -> bool:
        """Called when a call with `rejected` was UNAUTHENTICATED: whether there is now another token to
        try."""
        if rejected is None:
            return False
        return await self._renew(rejected) is not None

    async def take(self, answer: identity_pb2.LoginResponse) -> None:
        """Keeps the tokens of a log-in."""
        await self._keep(tokens_of(answer))

    async def forget(self) -> None:
        """Drops the tokens and the password, after a log-out."""
        self._password = None
        await self._keep(None)

    async def _keep(self, tokens: Tokens | None) -> None:
        self._tokens = tokens
        await self._transport.blocking(lambda: self._store.save(tokens))

    async def _renew(self, former: Tokens | None) -> Tokens | None:
        async with self._lock:
            exclusive = self._store.exclusive()
            await self._transport.blocking(exclusive.__enter__)
            try:
                stored = await self._transport.blocking(self._store.load)
                if stored is not None and (former is None or stored.access_token != former.access_token):
                    self._tokens = stored  # another call, or another process, was first
                    return stored
                renewed = await self._refreshed(former)
                if renewed is not None:
                    await self._keep(renewed)
                return renewed
            finally:
                await self._transport.blocking(lambda: exclusive.__exit__(None, None, None))

    async def _refreshed(self, former: Tokens | None) -> Tokens | None:
        if former is not None and former.refresh_token:
            request = identity_pb2.RefreshSessionRequest(refresh_token=former.refresh_token)
            try:
                return tokens_of(await self._public(_REFRESH, request))
            except UnauthenticatedError:
                if self._password is None:
                    raise
        if self._password is not None:
            login = identity_pb2.LoginRequest(
                username=self._password.username, password=self._password.password
            )
            return tokens_of(await self._public(_LOGIN, login))
        return None

    async def _public(self, method: Method[Request, Response], request: Request) -> Response:
        return await _attempts(self._transport, method, request, self._options, credentials=None)


async def _attempts(
    transport: TransportT,
    method: Method[Request, Response],
    request: Request,
    options: CallOptions,
    credentials: Credentials[TransportT] | None,
) -> Response:
    deadline = Deadline(options.timeout_of(method.pace(request)))
    failures, renewed = 0, False
    while True:
        # If this fails the call was not sent, and the renewal had its own retries: that is the call's error.
        tokens = await credentials.current() if credentials is not None else None
        try:
            return await transport.unary(method, request, _metadata(tokens), deadline.left())
        except UnauthenticatedError as error:
            if credentials is None or renewed or not await _renewed(credentials, tokens, error):
                raise
            renewed = True
        except PilothouseError as error:
            failures += 1
            delay = options.retry.delay_before_retry(error, repeatable=method.repeatable, failures=failures)
            if delay is None or not deadline.allows(delay):
                raise
            await transport.sleep(delay)


async def _renewed(
    credentials: Credentials[TransportT], tokens: Tokens | None, rejection: UnauthenticatedError
) -> bool:
    try:
        return await credentials.after_rejection(tokens)
    except UnauthenticatedError as error:
        # The refresh token is dead as well: what the call was told says less than that.
        raise error from rejection


def _metadata(tokens: Tokens | None) -> CallMetadata:
    return () if tokens is None else (("authorization", f"Bearer {tokens.access_token}"),)


class Connection(Generic[TransportT]):
    """A transport with credentials and options; what the nouns call through. Cheap to copy with other
    options."""

    def __init__(
        self, transport: TransportT, credentials: Credentials[TransportT], options: CallOptions
    ) -> None:
        self.transport = transport
        self.credentials = credentials
        self.options = options

    def with_options(self, timeout: float | None, retry: RetryPolicy | None) -> Connection[TransportT]:
        options = replace(self.options, timeout=timeout, retry=retry or self.options.retry)
        return Connection(self.transport, self.credentials, options)

    async def unary(self, method: Method[Request, Response], request: Request) -> Response:
        """Makes a call; raises PilothouseError once it has failed for good."""
        credentials = None if method.public else self.credentials
        return await _attempts(self.transport, method, method.prepared(request), self.options, credentials)

    async def collect(self, method: Method[Request, Response], requests: Iterable[Request]) -> Response:
        """Sends a stream of requests. It is not repeated after a failure: what was taken from the iterable is gone, and
        what the server kept of it is unknown. Its deadline is the `timeout` of the options, if there is one."""
        tokens = await self.credentials.current()
        return await self.transport.collect(method, requests, _metadata(tokens), self.options.timeout)

    async def converse(
        self, method: Method[Request, Response], requests: Requests[Request]
    ) -> AnswerStream[Response]:
        """Opens a stream both ways. It is not repeated after a failure: what was taken from `requests` is gone."""
        tokens = await self.credentials.current()
        return await self.transport.converse(method, requests, _metadata(tokens), self.options.timeout)

    async def open_stream(
        self, method: Method[Request, Response], request: Request, deadline: Deadline
    ) -> tuple[AnswerStream[Response], Tokens | None]:
        """Opens one stream, without retries, and tells the tokens it was opened with."""
        left = deadline.left()
        if left == 0:
            raise DeadlineExceededError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the time given to the stream is over"
            )
        tokens = None if method.public else await self.credentials.current()
        return await self.transport.stream(method, request, _metadata(tokens), left), tokens

    async def login(self, username: str, password: str) -> identity_pb2.LoginResponse:
        """Logs in and keeps the tokens for the calls that follow."""
        request = identity_pb2.LoginRequest(username=username, password=password)
        response = await self.unary(_LOGIN, request)
        await self.credentials.take(response)
        return response

    async def logout(self) -> None:
        """Ends the session and forgets it. A session that has ended already is no error."""
        if await self.credentials.current() is None:
            return
        with contextlib.suppress(UnauthenticatedError):
            await self.unary(_LOGOUT, identity_pb2.LogoutRequest())
        await self.credentials.forget()
