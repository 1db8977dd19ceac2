"""One call from beginning to end: its deadline, its attempts, and the facts of its failure.

One deadline covers everything: attempts, waits between them and the renewal of a token. An attempt is repeated within
the deadline if that is safe, so that a call outlasts a restart of the server.

The error is that of the last attempt, but `never_sent` and `request_id` cover all attempts. A server may have executed
the call before it died, even if the later attempts found no server. So `never_sent` is true only if it is true of every
attempt, and the caller repeats the call with the same `request_id`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol

import grpc

from pilothouse_client.errors import PilothouseError, UnauthenticatedError, error_of
from pilothouse_client.methods import Method, Pace, Request, Response
from pilothouse_client.retry import (
    DEFAULT_DEADLINES,
    DEFAULT_RETRY,
    SECONDS_FOR_AN_ATTEMPT,
    Deadline,
    Deadlines,
    RetryPolicy,
)
from pilothouse_client.tokens import Tokens
from pilothouse_client.transport import Envelope, Transport

# Called with the error that interrupts a stream, and with None once the stream continues.
Interruption = Callable[[PilothouseError | None], object]
# Called with an error and the number of attempts that have failed, before a call is sent again.
Retry = Callable[[PilothouseError, int], object]


def ignore(*_arguments: object) -> None:
    """Ignores a notice; the default for callbacks that the caller does not need."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls are made. `timeout` (seconds, for the whole call with its retries; for a stream, its whole life)
    replaces `deadlines`; None leaves each call its default and streams unlimited. `on_interruption` is called when a
    stream that has begun is interrupted, `on_retry` when a call is about to be sent again.
    """

    timeout: float | None = None
    deadlines: Deadlines = DEFAULT_DEADLINES
    retry: RetryPolicy = DEFAULT_RETRY
    on_interruption: Interruption = ignore
    on_retry: Retry = ignore

    def timeout_of(self, pace: Pace) -> float:
        """Returns the seconds that a call of this pace may take."""
        if self.timeout is not None:
            return self.timeout
        return {
            Pace.READ: self.deadlines.read,
            Pace.MUTATION: self.deadlines.mutation,
            Pace.CLUSTER: self.deadlines.cluster,
        }[pace]


class TokenSource(Protocol):
    """The source of the token for each attempt; `Credentials` implements it."""

    async def current(self, deadline: Deadline) -> Tokens | None:
        """Returns the tokens for the next attempt; None if there are none.

        Raises PilothouseError."""

    async def after_rejection(self, rejected: Tokens | None, deadline: Deadline) -> bool:
        """Returns whether there are now other tokens than those rejected.

        Raises PilothouseError."""


def envelope(tokens: Tokens | None, deadline: Deadline) -> Envelope:
    """Returns the envelope of an attempt: the token, if there is one, and the remaining time."""
    metadata = () if tokens is None else (("authorization", f"Bearer {tokens.access_token}"),)
    return Envelope(metadata, deadline.left())


@dataclass(slots=True)
class UnaryCall(Generic[Request, Response]):
    """A unary call. `tokens` is None if the call needs no token; each attempt sends `request` unchanged."""

    transport: Transport
    method: Method[Request, Response]
    request: Request
    options: CallOptions
    deadline: Deadline
    tokens: TokenSource | None = None
    _never_sent: bool = field(default=True, init=False)
    _failures: int = field(default=0, init=False)
    _renewed: bool = field(default=False, init=False)
    _last_error: PilothouseError | None = field(default=None, init=False)

    async def response(self) -> Response:
        """Sends the request until it succeeds, fails for good, or the deadline has passed.

        Raises:
            PilothouseError: the last attempt's, with the `request_id`; `never_sent` is true if no attempt was sent.
        """
        try:
            return await self._until_answered()
        except PilothouseError as error:
            error.request_id = self.method.request_id_of(self.request)
            error.never_sent = self._never_sent
            raise

    async def _until_answered(self) -> Response:
        while True:
            # If this fails, the attempt was not sent. The renewal had its own retries, so its error is the call's.
            tokens = await self.tokens.current(self.deadline) if self.tokens is not None else None
            sent_with = envelope(tokens, self.deadline)
            try:
                return await self.transport.unary(self.method, self.request, sent_with)
            except PilothouseError as error:
                self._never_sent = self._never_sent and error.never_sent
                await self._prepare_next(tokens, error, sent_with.timeout)

    async def _prepare_next(self, tokens: Tokens | None, error: PilothouseError, given: float | None) -> None:
        """Waits until the call may be sent again; raises the error if it may not.

        The attempt had `given` seconds."""
        if isinstance(error, UnauthenticatedError):
            if self._renewed or not await self._renew(tokens, error):
                raise error
            self._renewed = True
            return
        self._failures += 1
        delay = self.options.retry.delay_before_retry(
            error, repeatable=self.method.repeatable, failures=self._failures, left=self.deadline.left()
        )
        if delay is None:
            raise self._explained(error, given)
        self._last_error = error
        self.options.on_retry(error, self._failures)
        await self.transport.sleep(delay)

    async def _renew(self, tokens: Tokens | None, rejection: UnauthenticatedError) -> bool:
        if self.tokens is None:
            return False
        try:
            return await self.tokens.after_rejection(tokens, self.deadline)
        except UnauthenticatedError as error:
            # The refresh token is invalid as well. That error is more useful than the access token's.
            raise error from rejection

    def _explained(self, error: PilothouseError, given: float | None) -> PilothouseError:
        """Returns the exception for the last error, of an attempt that had `given` seconds.

        An expired deadline does not explain the failure. If the attempt had at most SECONDS_FOR_AN_ATTEMPT, the error
        of the previous attempt is the call's error; if it had more, the message reports both.
        """
        before = self._last_error
        if before is None or error.from_server or error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return error
        if given is not None and given <= SECONDS_FOR_AN_ATTEMPT:
            return before
        return error_of(error.code, f"{error.message}; the previous attempt: {before.message}")
