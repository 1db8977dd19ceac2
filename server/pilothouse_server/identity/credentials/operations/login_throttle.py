"""How guesses at an account are counted, at its password and at its codes alike.

One counter an account, in the database, found by a hash of the account's normal form, so neither case nor Unicode
form nor another replica gives a fresh one; unknown accounts have one too. A slow check runs without a connection, and
its result is settled under the counter's lock. So guesses at one account are counted one by one, and if the counter
is over its limit by then, the answer is that, whether the guess was right or not. So concurrent guesses cannot exceed
the limit, while a program may log in with the right password as often as it likes. After `FREE_FAILURES` failures
each further one locks the account for twice as long, up to `LONGEST_LOCK`. The counter is reset when all required
steps were right: a right password alone does not forgive wrong codes.

Nobody locks others out. A device that logged in before and shows its token, and an address that the account logged in
from, pass the lock: their own failures are counted, and `FREE_FAILURES` of them end that, as does another password.
While an account is locked their failures and successes leave its counter as it is. Each address has a budget of
failures, whichever accounts it tries (`failure_budgets`); those that logged in from there lately have one of their own
there (`login_turns`).

An account that does not exist has no devices and no addresses, but the same queries run for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.identity.accounts.repository.users import PasswordCredentials
from pilothouse_server.identity.credentials.repository import login_origins, login_throttles
from pilothouse_server.identity.credentials.repository.login_origins import KnownOrigin
from pilothouse_server.identity.credentials.repository.login_throttles import Throttle
from pilothouse_server.identity.credentials.trusted_devices import DeviceTokens, LoginNames, device_hash
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.identity.model import LOGIN_MEMORY_DAYS, LoginOrigin
from pilothouse_server.identity.tables import LONGEST_LOCK_SECONDS
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.names import normalise_username

FREE_FAILURES: Final = 5
FIRST_LOCK: Final = timedelta(seconds=30)
LONGEST_LOCK: Final = timedelta(seconds=LONGEST_LOCK_SECONDS)
# The time for which a name that logged in from an address has priority there.
_KNOWN_FOR: Final = timedelta(days=30)
# Failures that lie further back are forgotten.
FAILURES_COUNT_FOR: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tried:
    """The keys under which a log-in attempt is counted: account, address, device.

    `device` is None if the attempt has no device token.
    """

    account_hash: bytes
    address_hash: bytes
    device: bytes | None

    @property
    def origins(self) -> Sequence[bytes]:
        """Returns the database keys of the device and the address; always the same number."""
        return (self.address_hash, device_hash(self.device or b""))

    @property
    def origin_hash(self) -> bytes:
        """Returns the hash that represents address and device together."""
        return hashlib.sha256(b"\0".join(self.origins)).digest()


@dataclass(frozen=True, slots=True)
class HeldThrottle:
    """The counter of an account, locked until the transaction ends. `refusal` where nothing may be tried now."""

    tried: Tried
    throttle: Throttle
    locked: bool
    refusal: ResourceExhausted | None = None


class LoginThrottle:
    """Counts guesses. `key` signs device tokens, and the tags that replace unknown names."""

    def __init__(self, settings: Settings, key: bytes) -> None:
        self._devices = DeviceTokens(key)
        self._names = LoginNames(key)
        self._remembered = timedelta(days=LOGIN_MEMORY_DAYS)
        self.budgets = FailureBudgets(settings.login_failures_per_address)

    def tried(self, username: str, origin: LoginOrigin, device_token: str) -> Tried:
        """Returns the account of this name, as tried from there with this device token ('' none)."""
        account_hash = _account_hash(username)
        device = self._devices.read(device_token, account_hash)
        return Tried(account_hash, self._names.address_hash(origin.address_group), device)

    def tag(self, tried: Tried) -> str:
        """Returns the tag by which records name an account that does not exist."""
        return self._names.tag(tried.account_hash)

    async def locked_for(
        self, transaction: ReadTransaction, tried: Tried, stored: PasswordCredentials | None
    ) -> timedelta | None:
        """Returns for how long the account is locked for this caller, read without waiting for locks; None if
        it is not locked.
        """
        locked_for = await login_throttles.locked_for(transaction, tried.account_hash)
        known = await login_origins.find(transaction, tried.account_hash, tried.origins, self._remembered)
        return None if locked_for is None or _passes(known, stored) else locked_for

    async def logged_in_there(self, transaction: ReadTransaction, tried: Tried) -> bool:
        """Whether the account has logged in from this address lately."""
        there = (tried.address_hash,)
        return bool(await login_origins.find(transaction, tried.account_hash, there, _KNOWN_FOR))

    async def hold(
        self, transaction: Transaction, tried: Tried, stored: PasswordCredentials | None
    ) -> HeldThrottle:
        """Locks the account's counter, so that guesses at it are settled one by one."""
        throttle = await login_throttles.lock(transaction, tried.account_hash)
        known = await login_origins.find(
            transaction, tried.account_hash, tried.origins, self._remembered, lock=True
        )
        until = throttle.locked_until
        if until is None or until <= throttle.now:
            return HeldThrottle(tried, throttle, locked=False)
        if _passes(known, stored):
            return HeldThrottle(tried, throttle, locked=True)
        return HeldThrottle(tried, throttle, locked=True, refusal=throttled(until - throttle.now))

    async def failed(self, transaction: Transaction, held: HeldThrottle) -> None:
        """Counts a guess that was wrong."""
        tried, throttle = held.tried, held.throttle
        await login_origins.count_failure(transaction, tried.account_hash, tried.origins)
        if not held.locked:
            old = throttle.now - throttle.updated_at > FAILURES_COUNT_FOR
            failures = 1 if old else throttle.failures + 1
            await login_throttles.count_failure(
                transaction, tried.account_hash, failures, _locked_until(failures, throttle.now)
            )

    async def forgive(self, transaction: Transaction, held: HeldThrottle) -> None:
        """Resets the account's failures, unless others have it locked: all required steps were right."""
        if not held.locked:
            await login_throttles.clear(transaction, held.tried.account_hash)

    async def remember(self, transaction: Transaction, tried: Tried, checked: PasswordCredentials) -> str:
        """Records where the account has logged in from; returns the device's token, a new one's unless it passes."""
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


def throttled(remaining: timedelta) -> ResourceExhausted:
    """Returns the error for a locked account, which is unlocked after `remaining`."""
    seconds = max(1.0, remaining.total_seconds())
    return ResourceExhausted(
        f"too many failed log-ins to this account, try again in {seconds:.0f} s",
        reason="LOGIN_THROTTLED",
        retry_after_seconds=seconds,
    )


async def forget_failures(transaction: Transaction, username: str) -> None:
    """Unlocks an account immediately, however many log-ins have failed."""
    await login_throttles.clear(transaction, _account_hash(username))


def _account_hash(username: str) -> bytes:
    return hashlib.sha256(normalise_username(username).encode()).digest()


def _locked_until(failures: int, now: datetime) -> datetime | None:
    if failures < FREE_FAILURES:
        return None
    # The exponent is bounded, so that no number of failures overflows.
    doublings = min(failures - FREE_FAILURES, 16)
    return now + min(FIRST_LOCK * (1 << doublings), LONGEST_LOCK)


def _passes(known: Sequence[KnownOrigin], stored: PasswordCredentials | None) -> bool:
    """Whether one of the origins passes the account's lock."""
    return stored is not None and any(
        origin.failures < FREE_FAILURES and origin.password_changed_at == stored.password_changed_at
        for origin in known
    )
