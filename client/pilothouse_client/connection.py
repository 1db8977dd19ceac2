"""The connection behind a client's calls: its transport, its credentials and its options."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Generic

import grpc

from pilothouse_client.calls import CallOptions, UnaryCall, envelope
from pilothouse_client.credentials import Credentials
from pilothouse_client.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    ResourceExhaustedError,
    UnauthenticatedError,
)
from pilothouse_client.methods import Method, Pace, Request, Response
from pilothouse_client.retry import Deadline, RetryPolicy
from pilothouse_client.tokens import Tokens, short_tokens_of, tokens_of
from pilothouse_client.transport import AnswerStream, Requests, TransportT
from pilothouse_client.workloads import Workload

if TYPE_CHECKING:
    from pilothouse.identity.v1 import device_login_pb2, federation_pb2, identity_pb2

    ShowCode = Callable[[device_login_pb2.BeginDeviceLoginResponse], None]

# Reasons after which a log-in by a device polls again.
_NOT_YET = ("AUTHORIZATION_PENDING", "SLOW_DOWN")


class ServerConnection(Generic[TransportT]):
    """A transport with credentials and options; the nouns call through it.

    Cheap to copy with other options."""

    def __init__(
        self, transport: TransportT, credentials: Credentials[TransportT], options: CallOptions
    ) -> None:
        self.transport = transport
        self.credentials = credentials
        self.options = options

    def with_options(self, timeout: float | None, retry: RetryPolicy | None) -> ServerConnection[TransportT]:
        options = replace(self.options, timeout=timeout, retry=retry or self.options.retry)
        return ServerConnection(self.transport, self.credentials, options)

    async def unary(self, method: Method[Request, Response], request: Request) -> Response:
        """Makes a call; raises PilothouseError once it has failed for good."""
        return await UnaryCall(
            self.transport,
            method,
            method.prepared(request),
            self.options,
            self._deadline_of(method.pace(request)),
            None if method.public else self.credentials,
        ).response()

    def _deadline_of(self, pace: Pace) -> Deadline:
        return Deadline(self.options.timeout_of(pace))

    async def collect(self, method: Method[Request, Response], requests: Requests[Request]) -> Response:
        """Sends a stream of requests.

        It is not repeated after a failure: the requests taken from the iterable are gone, and it is unknown which of
        them the server stored. Its deadline is the `timeout` of the options, if there is one.
        """
        deadline = Deadline(self.options.timeout)
        tokens = await self.credentials.current(deadline)
        return await self.transport.collect(method, requests, envelope(tokens, deadline))

    async def converse(
        self, method: Method[Request, Response], requests: Requests[Request]
    ) -> AnswerStream[Response]:
        """Opens a bidirectional stream.

        It is not repeated after a failure: the requests taken from `requests` are gone.
        """
        deadline = Deadline(self.options.timeout)
        tokens = await self.credentials.current(deadline)
        return await self.transport.converse(method, requests, envelope(tokens, deadline))

    async def open_stream(
        self, method: Method[Request, Response], request: Request, deadline: Deadline
    ) -> tuple[AnswerStream[Response], Tokens | None]:
        """Opens one stream, without retries; returns it and the tokens it was opened with."""
        if deadline.left() == 0:
            raise DeadlineExceededError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline of the stream has passed"
            )
        tokens = None if method.public else await self.credentials.current(deadline)
        return await self.transport.stream(method, request, envelope(tokens, deadline)), tokens

    async def login(self, username: str, password: str) -> identity_pb2.LoginResponse:
        """Logs in and stores the tokens for later calls; a challenge leaves the current tokens unchanged."""
        from pilothouse.identity.v1 import identity_pb2
        from pilothouse_client.session_calls import LOGIN

        device_token = self.credentials.device.of(username)
        request = identity_pb2.LoginRequest(username=username, password=password, device_token=device_token)
        response = await self.unary(LOGIN, request)
        if not response.challenge:
            await self.credentials.take(response, username)
        return response

    async def complete_login(
        self, username: str, challenge: str, code: str, recovery_code: str, new_password: str
    ) -> identity_pb2.CompleteLoginResponse:
        """Completes a challenge, and stores the tokens as `login` does."""
        from pilothouse.identity.v1 import second_factor_pb2
        from pilothouse_client.session_calls import COMPLETE

        request = second_factor_pb2.CompleteLoginRequest(
            challenge=challenge,
            code=code,
            recovery_code=recovery_code,
            new_password=new_password,
            device_token=self.credentials.device.of(username),
        )
        response = await self.unary(COMPLETE, request)
        await self.credentials.take(response, username)
        return response

    async def login_by_code(
        self, request: federation_pb2.CompleteOidcLoginRequest
    ) -> identity_pb2.CompleteOidcLoginResponse:
        """Completes a log-in by the browser and stores the tokens."""
        from pilothouse_client.session_calls import COMPLETE_CODE

        answer = await self.unary(COMPLETE_CODE, request)
        await self.credentials.keep(tokens_of(answer))
        return answer

    async def login_by_device(self, issuer: str, show: ShowCode) -> identity_pb2.CompleteDeviceLoginResponse:
        """Begins a log-in by a code, shows the code, polls until a person has approved it, and stores the tokens."""
        from pilothouse.identity.v1 import device_login_pb2
        from pilothouse_client.session_calls import BEGIN_DEVICE, COMPLETE_DEVICE

        begun = await self.unary(BEGIN_DEVICE, device_login_pb2.BeginDeviceLoginRequest(issuer=issuer))
        show(begun)
        request = device_login_pb2.CompleteDeviceLoginRequest(login_token=begun.login_token)
        pause = begun.interval.ToNanoseconds() / 1e9
        while True:
            # The loop ends at the latest when the server reports that the code has expired.
            await self.transport.sleep(max(1.0, pause))
            try:
                answer = await self.unary(COMPLETE_DEVICE, request)
            except (FailedPreconditionError, ResourceExhaustedError) as error:
                if error.reason not in _NOT_YET:
                    raise
                pause = error.retry_delay or pause
            else:
                await self.credentials.keep(tokens_of(answer))
                return answer

    async def exchange_token(self, workload: Workload) -> identity_pb2.ExchangeTokenResponse:
        """Exchanges a workload's token and stores the new one for the calls that follow."""
        from pilothouse_client.session_calls import EXCHANGE

        answer = await self.unary(EXCHANGE, await self.transport.blocking(workload.request))
        await self.credentials.keep(short_tokens_of(answer))
        return answer

    async def logout(self) -> None:
        """Ends the session and drops its tokens.

        A session that has already ended is no error."""
        from pilothouse.identity.v1 import identity_pb2
        from pilothouse_client.session_calls import LOGOUT

        if await self.credentials.current(self._deadline_of(Pace.MUTATION)) is None:
            return
        with contextlib.suppress(UnauthenticatedError):
            await self.unary(LOGOUT, identity_pb2.LogoutRequest())
        await self.credentials.forget()
