"""What the calls of a client go through: its transport, its credentials and its options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Generic

import grpc

from pilothouse.identity.v1 import identity_pb2, second_factor_pb2
from pilothouse_client.calls import Call, CallOptions, envelope
from pilothouse_client.credentials import EXCHANGE, LOGIN, Credentials
from pilothouse_client.errors import DeadlineExceededError, UnauthenticatedError
from pilothouse_client.methods import Method, Pace, Request, Response, method_of
from pilothouse_client.retry import Deadline, RetryPolicy
from pilothouse_client.tokens import Tokens, short_tokens_of
from pilothouse_client.transport import AnswerStream, Requests, TransportT
from pilothouse_client.workloads import Workload

_COMPLETE = method_of(second_factor_pb2.CompleteLoginRequest, identity_pb2.CompleteLoginResponse)
_LOGOUT = method_of(identity_pb2.LogoutRequest, identity_pb2.LogoutResponse)


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
        return await Call(
            self.transport,
            method,
            method.prepared(request),
            self.options,
            self._deadline_of(method.pace(request)),
            None if method.public else self.credentials,
        ).response()

    def _deadline_of(self, pace: Pace) -> Deadline:
        return Deadline(self.options.timeout_of(pace))

    async def collect(self, method: Method[Request, Response], requests: Iterable[Request]) -> Response:
        """Sends a stream of requests. It is not repeated after a failure: what was taken from the iterable is gone, and
        what the server kept of it is unknown. Its deadline is the `timeout` of the options, if there is one."""
        deadline = Deadline(self.options.timeout)
        tokens = await self.credentials.current(deadline)
        return await self.transport.collect(method, requests, envelope(tokens, deadline))

    async def converse(
        self, method: Method[Request, Response], requests: Requests[Request]
    ) -> AnswerStream[Response]:
        """Opens a stream both ways. It is not repeated after a failure: what was taken from `requests` is gone."""
        deadline = Deadline(self.options.timeout)
        tokens = await self.credentials.current(deadline)
        return await self.transport.converse(method, requests, envelope(tokens, deadline))

    async def open_stream(
        self, method: Method[Request, Response], request: Request, deadline: Deadline
    ) -> tuple[AnswerStream[Response], Tokens | None]:
        """Opens one stream, without retries; returns it and the tokens it was opened with."""
        if deadline.left() == 0:
            raise DeadlineExceededError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the time given to the stream is over"
            )
        tokens = None if method.public else await self.credentials.current(deadline)
        return await self.transport.stream(method, request, envelope(tokens, deadline)), tokens

    async def login(self, username: str, password: str) -> identity_pb2.LoginResponse:
        """Logs in and keeps the tokens for the calls that follow; a challenge leaves what is kept as it was."""
        device_token = self.credentials.device.of(username)
        request = identity_pb2.LoginRequest(username=username, password=password, device_token=device_token)
        response = await self.unary(LOGIN, request)
        if not response.challenge:
            await self.credentials.take(response, username)
        return response

    async def complete_login(
        self, username: str, challenge: str, code: str, recovery_code: str, new_password: str
    ) -> identity_pb2.CompleteLoginResponse:
        """Answers a challenge, and keeps the tokens as `login`."""
        request = second_factor_pb2.CompleteLoginRequest(
            challenge=challenge,
            code=code,
            recovery_code=recovery_code,
            new_password=new_password,
            device_token=self.credentials.device.of(username),
        )
        response = await self.unary(_COMPLETE, request)
        await self.credentials.take(response, username)
        return response

    async def exchange_token(self, workload: Workload) -> identity_pb2.ExchangeTokenResponse:
        """Exchanges a workload's token and keeps the new one for the calls that follow."""
        answer = await self.unary(EXCHANGE, await self.transport.blocking(workload.request))
        await self.credentials.keep(short_tokens_of(answer))
        return answer

    async def logout(self) -> None:
        """Ends the session and forgets it. A session that has ended already is no error."""
        if await self.credentials.current(self._deadline_of(Pace.MUTATION)) is None:
            return
        with contextlib.suppress(UnauthenticatedError):
            await self.unary(_LOGOUT, identity_pb2.LogoutRequest())
        await self.credentials.forget()
