"""Log-in and renewal of sessions: the two calls that need no token, so they write as the system role.

Guessing. One counter an account, in the database, found by a hash of the account's normal form, so neither
case nor Unicode form nor another replica gives a fresh one; unknown accounts have one too. A password is verified
without a connection, and what came of it is settled under the counter's lock: guesses at one account are counted one
by one, and where the counter is over its limit by then the answer is that, whether the password was right or not. So
none can slip past the limit together, while a program may log in with the right password as often as it likes. After
`FREE_FAILURES` failures each further one locks the account for twice as long, up to `LONGEST_LOCK`.

Sameness. Unknown user, wrong password, user switched off: one answer, the same statements, one hash
verified.

Renewal. A refresh token is used up by one UPDATE, so of two uses one wins. A second use means that somebody
has a copy: the session with all its tokens is ended, and that is committed although the call fails. The
user's row is locked first here and wherever sessions are revoked, so that a revocation never misses the row
of a renewal that is under way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from pilothouse_server.errors import PermissionDenied, PilothouseError, ResourceExhausted, Unauthenticated
from pilothouse_server.identity import tokens
from pilothouse_server.identity.model import IssuedTokens, User
from pilothouse_server.identity.passwords import Passwords
from pilothouse_server.identity.repository import grants, sessions, throttles, users
from pilothouse_server.identity.repository.users import Credentials
from pilothouse_server.settings import Settings
from pilothouse_server.store.far_ahead import LONGEST_LOCK_SECONDS
from pilothouse_server.store.unit_of_work import Actor, Store, Transaction
from pilothouse_server.values.names import normalise_username

FREE_FAILURES: Final = 5
FIRST_LOCK: Final = timedelta(seconds=30)
LONGEST_LOCK: Final = timedelta(seconds=LONGEST_LOCK_SECONDS)
# Failures that lie further back are forgotten.
FAILURES_COUNT_FOR: Final = timedelta(days=1)

Identified = Callable[[Actor], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a log-in comes from."""

    client_ip: str
    user_agent: str


class Logins:
    """Checks passwords and issues tokens."""

    def __init__(self, store: Store, passwords: Passwords, settings: Settings) -> None:
        self._store = store
        self._passwords = passwords
        self._access = timedelta(seconds=settings.session_access_seconds)
        self._refresh = timedelta(seconds=settings.session_refresh_seconds)
        self._greatest_age = timedelta(seconds=settings.session_max_age_seconds)

    async def log_in(self, username: str, password: str, origin: Origin) -> tuple[User, IssuedTokens]:
        """Begins a session.

        Raises:
            Unauthenticated: unknown user, wrong password, or a user who may not log in; it is not said which.
            ResourceExhausted: LOGIN_THROTTLED after too many failures, LOGIN_BUSY where too many log in at once.
        """
        account_hash = _account_hash(username)
        rehashed: str | None = None
        async with self._passwords.turn():
            matched = await self._match(account_hash, username, password)
            if matched is not None and self._passwords.needs_rehash(matched.password_hash):
                rehashed = await self._passwords.hash_in_turn(password)
        issued: tuple[User, IssuedTokens] | None = None
        async with self._store.system_write("login") as transaction:
            checked = await self._settle(transaction, account_hash, matched)
            if isinstance(checked, Credentials):
                issued = await self._begin_session(transaction, checked, rehashed, origin)
        if isinstance(checked, PilothouseError):
            raise checked
        if issued is None:
            raise _refused()
        return issued

    async def confirm(self, username: str, password: str) -> str:
        """Checks the password of a user who is logged in, by the same counter; answers its hash.

        Raises:
            PermissionDenied: WRONG_PASSWORD.
            ResourceExhausted: as `log_in`.
        """
        account_hash = _account_hash(username)
        async with self._passwords.turn():
            matched = await self._match(account_hash, username, password)
        async with self._store.system_write("login") as transaction:
            checked = await self._settle(transaction, account_hash, matched)
        if isinstance(checked, Unauthenticated):
            raise PermissionDenied("the current password is wrong", reason="WRONG_PASSWORD")
        if isinstance(checked, PilothouseError):
            raise checked
        return checked.password_hash

    async def renew(self, refresh_token: str, identified: Identified) -> IssuedTokens:
        """Exchanges a refresh token for new tokens; `identified` is told whose it is, also where the call fails then.

        Raises:
            Unauthenticated: INVALID_REFRESH_TOKEN, or REFRESH_TOKEN_REPLAYED, after which the session has ended.
        """
        if not tokens.is_well_formed(refresh_token, tokens.REFRESH_PREFIX):
            raise _invalid_refresh_token()
        token_hash = tokens.token_hash(refresh_token)
        async with self._store.system_write("login") as transaction:
            renewed = await self._renew(transaction, token_hash, identified)
        if isinstance(renewed, PilothouseError):
            raise renewed
        return renewed

    async def _match(self, account_hash: bytes, username: str, password: str) -> Credentials | None:
        """The credentials if they are right; only within a turn.

        Raises:
            ResourceExhausted: the account is locked; nothing was verified.
        """
        async with self._store.system_read() as transaction:
            locked_for = await throttles.locked_for(transaction, account_hash)
            stored = await users.credentials(transaction, username)
        if locked_for is not None:
            raise _throttled(locked_for)
        matches = await self._passwords.verify(None if stored is None else stored.password_hash, password)
        return stored if stored is not None and matches and stored.user.status == "active" else None

    async def _settle(
        self, transaction: Transaction, account_hash: bytes, matched: Credentials | None
    ) -> Credentials | Unauthenticated | ResourceExhausted:
        """What matched, where that counts; else the error, to be raised once the counted failure is committed."""
        throttle = await throttles.lock(transaction, account_hash)
        if throttle.locked_until is not None and throttle.locked_until > throttle.now:
            return _throttled(throttle.locked_until - throttle.now)
        if matched is not None:
            await throttles.clear(transaction, account_hash)
            return matched
        old = throttle.now - throttle.updated_at > FAILURES_COUNT_FOR
        failures = 1 if old else throttle.failures + 1
        await throttles.count_failure(
            transaction, account_hash, failures, _locked_until(failures, throttle.now)
        )
        return _refused()

    async def _begin_session(
        self, transaction: Transaction, checked: Credentials, rehashed: str | None, origin: Origin
    ) -> tuple[User, IssuedTokens] | None:
        if not await users.logged_in(transaction, checked, rehashed):
            return None
        user = await users.get(transaction, checked.user.id)
        assert user is not None, "its row is locked"
        family_id = uuid4()
        issued = await self._issue(
            transaction,
            family_id,
            {
                "id": family_id,
                "user_id": user.id,
                "created_at": transaction.now,
                "client_ip": origin.client_ip[:45] or None,
                "user_agent": origin.user_agent or None,
            },
        )
        return user, issued

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
        session_id = uuid4()
        issued = await self._issue(
            transaction,
            used.family_id,
            {
                "id": session_id,
                "user_id": user.id,
                "created_at": used.created_at,
                "client_ip": used.client_ip,
                "user_agent": used.user_agent,
            },
        )
        await sessions.set_replaced_by(transaction, used.id, session_id)
        # The former access token stops working on every server.
        await grants.notify_changed(transaction)
        return issued

    async def _issue(self, transaction: Transaction, family_id: UUID, values: dict[str, Any]) -> IssuedTokens:
        """Makes a pair of tokens that does not outlive the session's greatest age, and stores its hashes."""
        end: datetime = values["created_at"] + self._greatest_age
        issued = IssuedTokens(
            access_token=tokens.new_token(tokens.ACCESS_PREFIX),
            access_expires_at=min(transaction.now + self._access, end),
            refresh_token=tokens.new_token(tokens.REFRESH_PREFIX),
            refresh_expires_at=min(transaction.now + self._refresh, end),
        )
        await sessions.insert_session(
            transaction,
            {
                **values,
                "family_id": family_id,
                "access_token_hash": tokens.token_hash(issued.access_token),
                "refresh_token_hash": tokens.token_hash(issued.refresh_token),
                "access_expires_at": issued.access_expires_at,
                "refresh_expires_at": issued.refresh_expires_at,
                "last_used_at": transaction.now,
            },
        )
        return issued


def _account_hash(username: str) -> bytes:
    return hashlib.sha256(normalise_username(username).encode()).digest()


def _locked_until(failures: int, now: datetime) -> datetime | None:
    if failures < FREE_FAILURES:
        return None
    # The exponent is bounded, so that no number of failures overflows.
    doublings = min(failures - FREE_FAILURES, 16)
    return now + min(FIRST_LOCK * (1 << doublings), LONGEST_LOCK)


def _refused() -> Unauthenticated:
    return Unauthenticated("the user name or the password is wrong", reason="INVALID_CREDENTIALS")


def _throttled(remaining: timedelta) -> ResourceExhausted:
    seconds = max(1.0, remaining.total_seconds())
    return ResourceExhausted(
        f"too many failed log-ins to this account, try again in {seconds:.0f} s",
        reason="LOGIN_THROTTLED",
        retry_after_seconds=seconds,
    )


def _invalid_refresh_token() -> Unauthenticated:
    return Unauthenticated(
        "the refresh token is not valid or its session has ended: log in again",
        reason="INVALID_REFRESH_TOKEN",
    )


async def forget_failures(transaction: Transaction, username: str) -> None:
    """Lets an account be logged in to at once, however often that has failed."""
    await throttles.clear(transaction, _account_hash(username))
