"""Log-in and renewal of sessions: calls that need no token, so they write as the system role.

A correct password begins a session. If further steps must follow, the caller gets a challenge instead: for a code of
the user's authenticator, the enrolment of an authenticator, or a new password (`login_steps`). `login_throttle` counts
guesses; `login_turns` queues log-ins by address, and by name at each address.

Uniform responses. For an unknown user, a wrong password and an inactive user, the response is the same, the same
statements run, and one hash is verified. An account that does not exist has no devices and no addresses, but the same
queries run for it.

Renewal. One UPDATE marks a refresh token as used, so only one of two concurrent uses succeeds. A second use means that
the token was copied: the session with all its tokens ends, and that is committed although the call fails. The user's
row is locked first here and wherever sessions are revoked, so that a revocation never misses the row of a concurrent
renewal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pilothouse_server.errors import PermissionDenied, PilothouseError, ResourceExhausted, Unauthenticated
from pilothouse_server.identity import tokens
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.repository import users
from pilothouse_server.identity.accounts.repository.users import PasswordCredentials
from pilothouse_server.identity.credentials.login_turns import LoginTurns, Whose
from pilothouse_server.identity.credentials.operations.challenges import Challenged, Challenges
from pilothouse_server.identity.credentials.operations.login_throttle import (
    HeldThrottle,
    LoginThrottle,
    Tried,
    throttled,
)
from pilothouse_server.identity.credentials.operations.second_factors import SecondFactors
from pilothouse_server.identity.credentials.operations.session_tokens import SessionTokens
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.identity.credentials.repository import sessions
from pilothouse_server.identity.federation.operations.renewals import Identified, Renewals
from pilothouse_server.identity.model import IssuedTokens, LoginOrigin, User
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import Actor, Store, Transaction

Named = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """The credentials of a log-in attempt."""

    username: str
    password: str = field(repr=False)
    device_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BegunSession:
    """A session that has begun. The caller sends `device_token` with the next log-in."""

    user: User
    issued: IssuedTokens
    device_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Verified:
    """The account's credentials, None if there is no such account, and whether the password was correct."""

    stored: PasswordCredentials | None
    right: bool

    @property
    def matched(self) -> PasswordCredentials | None:
        """The credentials if the password was correct and the user may log in; else None."""
        stored = self.stored
        if stored is None or not self.right or stored.expired:
            return None
        return stored if stored.user.status == "active" else None


class Logins:
    """Checks passwords and issues tokens."""

    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        session_tokens: SessionTokens,
        throttle: LoginThrottle,
        factors: SecondFactors,
        challenges: Challenges,
        renewals: Renewals,
        turns: LoginTurns,
    ) -> None:
        self._store = store
        self._turns = turns
        self._renewals = renewals
        self._passwords = passwords
        self._session_tokens = session_tokens
        self._throttle = throttle
        self._budgets = throttle.budgets
        self._factors = factors
        self._challenges = challenges

    async def log_in(
        self, attempt: LoginAttempt, origin: LoginOrigin, named: Named
    ) -> BegunSession | Challenged:
        """Begins a session, or returns a challenge with the missing steps.

        `named` receives the account's name for the audit record, also if the call then fails.

        Raises:
            Unauthenticated: unknown user, wrong password, or a user who may not log in; the message does not
                say which.
            ResourceExhausted: LOGIN_THROTTLED after too many failures, LOGIN_BUSY for too many concurrent
                log-ins, LOGIN_LIMITED after too many failures from one address.
        """
        tried = self._throttle.tried(attempt.username, origin, attempt.device_token)
        named(self._throttle.tag(tried))
        rehashed: str | None = None
        whose = await self._whose(tried, origin)
        async with self._turns.turn(whose):
            verified = await self._verify(tried, attempt.username, attempt.password, named)
            if verified.matched is not None and self._passwords.needs_rehash(verified.matched.password_hash):
                rehashed = await self._passwords.hash_in_turn(attempt.password)
        begun: BegunSession | Challenged | None = None
        async with self._store.system_write("login") as transaction:
            held, refusal = await self._settle(transaction, tried, verified)
            if refusal is None and verified.matched is not None:
                begun = await self._let_in(transaction, held, verified.matched, rehashed, origin)
        if refusal is not None:
            raise refusal
        if begun is None:
            raise _refused()
        if isinstance(begun, BegunSession):
            self._budgets.succeeded(whose.budget)
        else:
            self._budgets.give_back(whose.budget)
        return begun

    async def confirm(self, username: str, password: str, origin: LoginOrigin) -> str:
        """Checks the password of a user who is logged in, with the counters of `log_in`; returns the password's hash.

        Raises:
            PermissionDenied: WRONG_PASSWORD.
            ResourceExhausted: as `log_in`.
        """
        tried = self._throttle.tried(username, origin, "")
        async with self._passwords.turn(f"account {tried.account_hash.hex()}", known=True):
            verified = await self._verify(tried, username, password, lambda _name: None)
        async with self._store.system_write("login") as transaction:
            held, refusal = await self._settle(transaction, tried, verified)
            if refusal is None:
                await self._throttle.forgive(transaction, held)
        if isinstance(refusal, Unauthenticated):
            raise PermissionDenied("the current password is wrong", reason="WRONG_PASSWORD")
        if refusal is not None:
            raise refusal
        assert verified.matched is not None, "it would have been refused"
        return verified.matched.password_hash

    async def renew(self, refresh_token: str, identified: Identified) -> IssuedTokens:
        """Exchanges a refresh token for new tokens; `identified` receives its owner, also if the call then fails.

        Raises:
            Unauthenticated: INVALID_REFRESH_TOKEN; or REFRESH_TOKEN_REPLAYED or SECOND_FACTOR_NEEDED, after which the
                session has ended.
            PilothouseError: as `Renewals.check`, for a session that began at an issuer.
        """
        if not tokens.is_well_formed(refresh_token, tokens.REFRESH_PREFIX):
            raise _invalid_refresh_token()
        token_hash = tokens.token_hash(refresh_token)
        await self._renewals.check(token_hash, identified)
        async with self._store.system_write("login") as transaction:
            renewed = await self._renew(transaction, token_hash, identified)
        if isinstance(renewed, PilothouseError):
            raise renewed
        return renewed

    async def _whose(self, tried: Tried, origin: LoginOrigin) -> Whose:
        """Returns the keys of the attempt's budget and queue: address, account, and whether the account is known there.

        Raises ResourceExhausted: LOGIN_BUSY.
        """

        async def logged_in_there() -> bool:
            async with self._store.system_look() as transaction:
                return await self._throttle.logged_in_there(transaction, tried)

        address = origin.address_group
        known = tried.device is not None or await self._turns.look(address, logged_in_there)
        return Whose(address, tried.account_hash.hex(), known)

    async def _verify(self, tried: Tried, username: str, password: str, named: Named) -> _Verified:
        """Returns the stored values of the account, and whether the password is correct; call it within a turn only.

        Raises:
            ResourceExhausted: the account is locked for this caller; nothing was verified.
        """
        async with self._store.system_read() as transaction:
            stored = await users.credentials(transaction, username)
            locked_for = await self._throttle.locked_for(transaction, tried, stored)
        if stored is not None:
            named(stored.user.username)
        if locked_for is not None:
            raise throttled(locked_for)
        right = await self._passwords.verify(None if stored is None else stored.password_hash, password)
        return _Verified(stored, right)

    async def _settle(
        self, transaction: Transaction, tried: Tried, verified: _Verified
    ) -> tuple[HeldThrottle, Unauthenticated | ResourceExhausted | None]:
        """Counts the result; returns the account's locked counter, and the error; None if the caller may log in.

        The caller raises the error after the transaction has committed, so that the counted failure is stored.
        """
        held = await self._throttle.hold(transaction, tried, verified.stored)
        if held.refusal is not None:
            return held, held.refusal
        if verified.matched is not None:
            return held, None
        await self._throttle.failed(transaction, held)
        return held, _refused()

    async def _let_in(
        self,
        transaction: Transaction,
        held: HeldThrottle,
        checked: PasswordCredentials,
        rehashed: str | None,
        origin: LoginOrigin,
    ) -> BegunSession | Challenged | None:
        """Returns a session, or a challenge if further steps are needed; None if password or status have changed."""
        steps = await self._factors.needed(transaction, checked)
        if steps.any:
            return await self._challenges.issue(transaction, held.tried, checked, steps)
        if not await users.logged_in(transaction, checked, rehashed):
            return None
        await self._throttle.forgive(transaction, held)
        user = await users.get(transaction, checked.user.id)
        assert user is not None, "its row is locked"
        device_token = await self._throttle.remember(transaction, held.tried, checked)
        issued = await self._session_tokens.begin(transaction, user.id, origin, "password")
        return BegunSession(user, issued, device_token)

    async def _renew(
        self, transaction: Transaction, token_hash: bytes, identified: Identified
    ) -> IssuedTokens | Unauthenticated:
        known = await sessions.find_refresh_token(transaction, token_hash)
        if known is None:
            return _invalid_refresh_token()
        user = await users.get(transaction, known.user_id, lock=True)
        if user is None:
            return _invalid_refresh_token()
        identified(Actor(user.id, user.username))
        if await self._needs_factor(transaction, known):
            await sessions.revoke_family(transaction, user.id, known.family_id)
            await grants.notify_changed(transaction)
            return Unauthenticated(
                "this account needs a second factor now: log in again", reason="SECOND_FACTOR_NEEDED"
            )
        used = None
        if user.status == "active":
            used = await sessions.take_refresh_token(transaction, token_hash)
        if used is None:
            known = await sessions.find_refresh_token(transaction, token_hash)
            if known is None or known.rotated_at is None:
                return _invalid_refresh_token()
            await sessions.revoke_family(transaction, user.id, known.family_id)
            await grants.notify_changed(transaction)
            return Unauthenticated(
                "the refresh token was used before, so the session has ended: log in again",
                reason="REFRESH_TOKEN_REPLAYED",
            )
        issued = await self._session_tokens.go_on(transaction, used)
        # Makes every server reject the former access token.
        await grants.notify_changed(transaction)
        return issued

    async def _needs_factor(self, transaction: Transaction, session: Row) -> bool:
        """Returns whether a valid session began by a password alone although its user must have a second factor now."""
        return (
            session.method == "password"
            and session.revoked_at is None
            and session.rotated_at is None
            and await self._factors.must_have_one(transaction, session.user_id)
        )


def _refused() -> Unauthenticated:
    return Unauthenticated("the user name or the password is wrong", reason="INVALID_CREDENTIALS")


def _invalid_refresh_token() -> Unauthenticated:
    return Unauthenticated(
        "the refresh token is not valid or its session has ended: log in again",
        reason="INVALID_REFRESH_TOKEN",
    )
