"""The token that calls carry, renewed as needed.

A call that needs a token uses the current one, which is renewed first if most of its life has passed. After
UNAUTHENTICATED, the call renews the token and is repeated once; if another call has already renewed it, the new token
is used. A renewal is a refresh, or else a log-in if the client has a password, or an exchange if it has a workload. It
may take the remaining time of the call that needs it, and so may the wait for a renewal by another call.

Each log-in sends the device token of the last one, so that password guessing elsewhere does not lock the account for
this client.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic

import grpc

from pilothouse_client.calls import CallOptions, UnaryCall
from pilothouse_client.errors import DeadlineExceededError, UnauthenticatedError, UnavailableError
from pilothouse_client.methods import Method, Request, Response
from pilothouse_client.retry import Deadline, RetryPolicy
from pilothouse_client.tokens import Tokens, TokenStore, short_tokens_of, tokens_of
from pilothouse_client.transport import TransportT
from pilothouse_client.workloads import Workload

if TYPE_CHECKING:
    from pilothouse.identity.v1 import identity_pb2

    # The response to a log-in, directly or after a challenge.
    LoggedIn = identity_pb2.LoginResponse | identity_pb2.CompleteLoginResponse

_ONCE = RetryPolicy(attempts=1)


@dataclass(frozen=True, slots=True)
class Password:
    """The user name and password for another log-in when the session has ended."""

    username: str
    password: str = field(repr=False)


@dataclass(slots=True)
class DeviceToken:
    """The device token of the last log-in, and its user; it outlives the session."""

    token: str = field(default="", repr=False)
    username: str = ""

    def of(self, username: str) -> str:
        """Returns the token to send for a user; empty if it is another user's.

        A token that the caller passed to the client is sent for any user."""
        return self.token if self.username.casefold() in ("", username.casefold()) else ""

    def keep(self, answer: LoggedIn, username: str) -> None:
        """Stores the device token of a log-in. A log-in without one changes nothing."""
        if answer.device_token:
            self.token, self.username = answer.device_token, username


class Credentials(Generic[TransportT]):
    """The token of a client, renewed as needed, by one call at a time."""

    def __init__(
        self,
        transport: TransportT,
        store: TokenStore,
        password: Password | None,
        options: CallOptions,
        device: DeviceToken | None = None,
        workload: Workload | None = None,
    ) -> None:
        self._transport = transport
        self._store = store
        self._password = password
        self._workload = workload
        self._options = options
        self.device = device or DeviceToken()
        self._lock = transport.lock()
        # The tokens as last loaded. A renewal loads them again under `exclusive`; until then the server rejects an
        # outdated token.
        self._tokens: Tokens | None = None

    async def current(self, deadline: Deadline) -> Tokens | None:
        """Returns the tokens for the next attempt, None if there are none.

        Logs in the first time, and renews the tokens when that is due. Raises PilothouseError."""
        if self._tokens is None:
            self._tokens = await self._transport.blocking(self._store.load)
        tokens = self._tokens
        if tokens is None:
            return await self._renew(None, deadline, self._options) if self._can_log_in else None
        now = time.time()
        if not (tokens.renewal_due(now) or (self._workload is not None and tokens.is_ageing(now))):
            return tokens
        if now >= tokens.access_expire:
            return await self._renew(tokens, deadline, self._options)
        try:
            return await self._renew(tokens, deadline, replace(self._options, retry=_ONCE))
        except UnavailableError:
            # Early renewal is optional: the old token is still valid.
            return tokens

    async def after_rejection(self, rejected: Tokens | None, deadline: Deadline) -> bool:
        """Returns whether there are now other tokens than `rejected`, with which a call was UNAUTHENTICATED."""
        if rejected is None:
            return False
        return await self._renew(rejected, deadline, self._options) is not None

    async def take(self, answer: LoggedIn, username: str) -> None:
        """Stores the tokens of a log-in."""
        self.device.keep(answer, username)
        await self._keep(tokens_of(answer))

    async def forget(self) -> None:
        """Drops the tokens and the password or the workload, after a log-out.

        The device token is kept."""
        self._password, self._workload = None, None
        await self._keep(None)

    async def keep(self, tokens: Tokens) -> None:
        """Stores tokens that did not come from a log-in by a password."""
        await self._keep(tokens)

    @property
    def _can_log_in(self) -> bool:
        return self._password is not None or self._workload is not None

    async def _keep(self, tokens: Tokens | None) -> None:
        self._tokens = tokens
        await self._transport.blocking(lambda: self._store.save(tokens))

    async def _renew(self, former: Tokens | None, deadline: Deadline, options: CallOptions) -> Tokens | None:
        if not await self._lock.acquire(deadline.left()):
            raise DeadlineExceededError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "the deadline of the call has passed; another call was renewing the session",
            )
        try:
            exclusive = self._store.exclusive()
            await self._transport.blocking(exclusive.__enter__)
            try:
                stored = await self._transport.blocking(self._store.load)
                if stored is not None and (former is None or stored.access_token != former.access_token):
                    self._tokens = stored  # another call, or another process, was first
                    return stored
                renewed = await self._refreshed(former, deadline, options)
                if renewed is not None:
                    await self._keep(renewed)
                return renewed
            finally:
                await self._transport.blocking(lambda: exclusive.__exit__(None, None, None))
        finally:
            self._lock.release()

    async def _refreshed(
        self, former: Tokens | None, deadline: Deadline, options: CallOptions
    ) -> Tokens | None:
        from pilothouse.identity.v1 import identity_pb2
        from pilothouse_client.session_calls import EXCHANGE, LOGIN, REFRESH

        if former is not None and former.refresh_token:
            request = identity_pb2.RefreshSessionRequest(refresh_token=former.refresh_token)
            try:
                return tokens_of(await self._public(REFRESH, request, deadline, options))
            except UnauthenticatedError:
                if not self._can_log_in:
                    raise
        if self._password is not None:
            username = self._password.username
            login = identity_pb2.LoginRequest(
                username=username, password=self._password.password, device_token=self.device.of(username)
            )
            answer = await self._public(LOGIN, login, deadline, options)
            if answer.challenge:
                raise UnauthenticatedError(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "this account needs more than a password to log in: call login and complete_login",
                    reason="SECOND_FACTOR_NEEDED",
                )
            self.device.keep(answer, username)
            return tokens_of(answer)
        if self._workload is not None:
            exchange = await self._transport.blocking(self._workload.request)
            return short_tokens_of(await self._public(EXCHANGE, exchange, deadline, options))
        return None

    async def _public(
        self, method: Method[Request, Response], request: Request, deadline: Deadline, options: CallOptions
    ) -> Response:
        # A stream may have no deadline, but its log-in is a call like any other.
        limit = deadline.at_most(options.timeout_of(method.pace(request)))
        return await UnaryCall(self._transport, method, request, options, limit).response()
