"""Log-in and renewal of sessions: the two calls that need no token, so they write as the system role.

Guessing. One counter an account, in the database, found by a hash of the account's normal form, so neither
case nor Unicode form nor another replica gives a fresh one; unknown accounts have one too. A password is verified
without a connection, and what came of it is settled under the counter's lock: guesses at one account are counted one
by one, and where the counter is over its limit by then the answer is that, whether the password was right or not. So
none can slip past the limit together, while a program may log in with the right password as often as it likes. After
`FREE_FAILURES` failures each further one locks the account for twice as long, up to `LONGEST_LOCK`.

Nobody locks others out. A device that logged in before and shows its token, and an address that the account logged in
from, pass the lock: their own failures are counted, and `FREE_FAILURES` of them end that, as does another password.
While an account is locked their failures and successes leave its counter as it is. Each address has a budget of
failures, whichever accounts it tries (`failure_budgets`), and turns of its own in the queue for a hash (`hash_queue`).

Sameness. Unknown user, wrong password, user switched off: one answer, the same statements, one hash
verified. An account that does not exist has no devices and no addresses, and is asked for them all the same.

Renewal. A refresh token is used up by one UPDATE, so of two uses one wins. A second use means that somebody
has a copy: the session with all its tokens is ended, and that is committed although the call fails. The
user's row is locked first here and wherever sessions are revoked, so that a revocation never misses the row
of a renewal that is under way.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pilothouse_server.errors import PermissionDenied, PilothouseError, ResourceExhausted, Unauthenticated
from pilothouse_server.identity import tokens
from pilothouse_server.identity.devices import DeviceTokens, LoginNames, device_hash
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.identity.model import IssuedTokens, User
from pilothouse_server.identity.operations.session_tokens import Origin, SessionTokens
from pilothouse_server.identity.passwords import Passwords
from pilothouse_server.identity.repository import grants, login_origins, sessions, throttles, users
from pilothouse_server.identity.repository.login_origins import KnownOrigin
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
Named = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What somebody who logs in says."""

    username: str
    password: str = field(repr=False)
    device_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that has begun. `device_token` is to be shown at the next log-in."""

    user: User
    issued: IssuedTokens
    device_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Tried:
    """An account that is tried, as it is counted: by itself, by the address, by the device (None: no token of it)."""

    account_hash: bytes
    address_hash: bytes
    device: bytes | None

    @property
    def origins(self) -> Sequence[bytes]:
        """The device's and the address's places in the database; as many in any case."""
        return (self.address_hash, device_hash(self.device or b""))


@dataclass(frozen=True, slots=True)
class _Verified:
    """The account's credentials, None where there is no such account, and whether the password was right."""

    stored: Credentials | None
    right: bool

    @property
    def matched(self) -> Credentials | None:
        """The credentials where they let somebody in."""
        stored = self.stored
        return stored if stored is not None and self.right and stored.user.status == "active" else None


class Logins:
    """Checks passwords and issues tokens. `key` is of device tokens and of what stands for unknown names."""

    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        session_tokens: SessionTokens,
        settings: Settings,
        key: bytes,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._session_tokens = session_tokens
        self._devices = DeviceTokens(key)
        self._names = LoginNames(key)
        self._budgets = FailureBudgets(settings.login_failures_per_address)
        self._remembered = timedelta(days=settings.login_memory_days)

    async def log_in(self, attempt: Attempt, origin: Origin, named: Named) -> Begun:
        """Begins a session. `named` is told what a record may call the account, also where the call fails then.

        Raises:
            Unauthenticated: unknown user, wrong password, or a user who may not log in; it is not said which.
            ResourceExhausted: LOGIN_THROTTLED after too many failures, LOGIN_BUSY where too many log in at once,
                LOGIN_LIMITED after too many failures of one address.
        """
        account_hash = _account_hash(attempt.username)
        named(self._names.tag(account_hash))
        tried = self._tried(account_hash, origin, self._devices.read(attempt.device_token, account_hash))
        rehashed: str | None = None
        who = origin.address_group if tried.device is None else f"account {account_hash.hex()}"
        async with self._turn(who, known=tried.device is not None):
            verified = await self._verify(tried, attempt.username, attempt.password, named)
            if verified.matched is not None and self._passwords.needs_rehash(verified.matched.password_hash):
                rehashed = await self._passwords.hash_in_turn(attempt.password)
        begun: Begun | None = None
        async with self._store.system_write("login") as transaction:
            checked = await self._settle(transaction, tried, verified)
            if isinstance(checked, Credentials):
                begun = await self._begin_session(transaction, tried, checked, rehashed, origin)
        if isinstance(checked, PilothouseError):
            raise checked
        if begun is None:
            raise _refused()
        self._budgets.succeeded(who)
        return begun

    async def confirm(self, username: str, password: str, origin: Origin) -> str:
        """Checks the password of a user who is logged in, by the same counters; answers its hash.

        Raises:
            PermissionDenied: WRONG_PASSWORD.
            ResourceExhausted: as `log_in`.
        """
        account_hash = _account_hash(username)
        tried = self._tried(account_hash, origin, None)
        async with self._passwords.turn(f"account {account_hash.hex()}", known=True):
            verified = await self._verify(tried, username, password, lambda _name: None)
        async with self._store.system_write("login") as transaction:
            checked = await self._settle(transaction, tried, verified)
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

    def _tried(self, account_hash: bytes, origin: Origin, device: bytes | None) -> _Tried:
        return _Tried(account_hash, self._names.address_hash(origin.address_group), device)

    @asynccontextmanager
    async def _turn(self, who: str, *, known: bool) -> AsyncIterator[None]:
        """A turn to verify a password. Raises ResourceExhausted: LOGIN_LIMITED, LOGIN_BUSY."""
        self._budgets.take(who)
        begun = False
        try:
            async with self._passwords.turn(who, known=known or self._budgets.is_known(who)):
                begun = True
                yield
        except ResourceExhausted:
            if not begun:
                self._budgets.give_back(who)
            raise

    async def _verify(self, tried: _Tried, username: str, password: str, named: Named) -> _Verified:
        """What a log-in is checked against, and whether it is right; only within a turn.

        Raises:
            ResourceExhausted: the account is locked for whoever tries it; nothing was verified.
        """
        async with self._store.system_read() as transaction:
            locked_for = await throttles.locked_for(transaction, tried.account_hash)
            known = await login_origins.find(transaction, tried.account_hash, tried.origins, self._remembered)
            stored = await users.credentials(transaction, username)
        if stored is not None:
            named(stored.user.username)
        if locked_for is not None and not _passes(known, stored):
            raise _throttled(locked_for)
        right = await self._passwords.verify(None if stored is None else stored.password_hash, password)
        return _Verified(stored, right)

    async def _settle(
        self, transaction: Transaction, tried: _Tried, verified: _Verified
    ) -> Credentials | Unauthenticated | ResourceExhausted:
        """What matched, where that counts; else the error, to be raised once the counted failure is committed."""
        account_hash, origins, matched = tried.account_hash, tried.origins, verified.matched
        throttle = await throttles.lock(transaction, account_hash)
        known = await login_origins.find(transaction, account_hash, origins, self._remembered, lock=True)
        locked = throttle.locked_until is not None and throttle.locked_until > throttle.now
        if locked and throttle.locked_until is not None and not _passes(known, verified.stored):
            return _throttled(throttle.locked_until - throttle.now)
        if matched is not None:
            if not locked:
                await throttles.clear(transaction, account_hash)
            return matched
        await login_origins.count_failure(transaction, account_hash, origins)
        if not locked:
            old = throttle.now - throttle.updated_at > FAILURES_COUNT_FOR
            failures = 1 if old else throttle.failures + 1
            await throttles.count_failure(
                transaction, account_hash, failures, _locked_until(failures, throttle.now)
            )
        return _refused()

    async def _begin_session(
        self,
        transaction: Transaction,
        tried: _Tried,
        checked: Credentials,
        rehashed: str | None,
        origin: Origin,
    ) -> Begun | None:
        if not await users.logged_in(transaction, checked, rehashed):
            return None
        user = await users.get(transaction, checked.user.id)
        assert user is not None, "its row is locked"
        device_token = await self._remember(transaction, tried, checked)
        issued = await self._session_tokens.begin(transaction, user.id, origin, "password")
        return Begun(user, issued, device_token)

    async def _remember(self, transaction: Transaction, tried: _Tried, checked: Credentials) -> str:
        """Notes where the account has logged in from; answers the device's token, a new one's unless it passes."""
        account_hash = tried.account_hash
        kept = None
        if tried.device is not None:
            own = (device_hash(tried.device),)
            if _passes(await login_origins.find(transaction, account_hash, own, self._remembered), checked):
                kept = tried.device
        device_token, device = self._devices.issue(account_hash, kept)
        for origin_hash in sorted((tried.address_hash, device_hash(device))):
            await login_origins.remember(transaction, account_hash, origin_hash, checked.password_changed_at)
        await login_origins.forget_most(transaction, account_hash)
        return device_token

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
        issued = await self._session_tokens.go_on(transaction, used)
        # The former access token stops working on every server.
        await grants.notify_changed(transaction)
        return issued


def _account_hash(username: str) -> bytes:
    return hashlib.sha256(normalise_username(username).encode()).digest()


def _locked_until(failures: int, now: datetime) -> datetime | None:
    if failures < FREE_FAILURES:
        return None
    # The exponent is bounded, so that no number of failures overflows.
    doublings = min(failures - FREE_FAILURES, 16)
    return now + min(FIRST_LOCK * (1 << doublings), LONGEST_LOCK)


def _passes(known: Sequence[KnownOrigin], stored: Credentials | None) -> bool:
    """Whether one of the origins passes the account's lock."""
    return stored is not None and any(
        origin.failures < FREE_FAILURES and origin.password_changed_at == stored.password_changed_at
        for origin in known
    )


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
