"""Counts guesses at an account, both at its password and at its codes.

Each account has one counter in the database, keyed by a hash of the normalised name. So another spelling, another
Unicode form or another replica does not give a fresh counter. Unknown accounts have counters too. The slow check of a
password runs without a database connection, and its result is counted under the counter's lock. So guesses at one
account are counted one by one. If the account is locked by then, the call fails as throttled even if the guess was
correct. So concurrent guesses cannot exceed the limit, while a program may log in with the correct password any number
of times. After `FREE_FAILURES` failures, each further failure locks the account for twice as long, up to
`LONGEST_LOCK`. The counter is reset when all required steps succeed: a correct password alone does not reset the count
of wrong codes.

An attacker cannot lock out the user. A known device that sends its token, and an address that the account has logged in
from, bypass the lock. Their own failures are counted: after `FREE_FAILURES` of them, or after a change of the password,
they no longer bypass it. While an account is locked, their failures and successes do not change its counter. Each
address has a budget of failures over all accounts (`failure_budgets`). Accounts that recently logged in from an address
have a budget of their own there (`login_turns`).

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
# How long after its last log-in from an address an account has a budget and a queue of its own there.
_KNOWN_FOR: Final = timedelta(days=30)
# Older failures are not counted.
FAILURES_COUNT_FOR: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tried:
    """The keys under which a log-in attempt is counted: account, address, device.

    `device` is None if the attempt has no valid device token.
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
    """The counter of an account; its row is locked until the transaction ends.

    `locked`: the account is locked. `refusal` is the error if this caller may not try now.
    """

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
        """Returns the keys of an attempt at this name, from this origin, with this device token ('' for none)."""
        account_hash = _account_hash(username)
        device = self._devices.read(device_token, account_hash)
        return Tried(account_hash, self._names.address_hash(origin.address_group), device)

    def tag(self, tried: Tried) -> str:
        """Returns the tag that audit records contain instead of an account's name if no such account is found."""
        return self._names.tag(tried.account_hash)

    async def locked_for(
        self, transaction: ReadTransaction, tried: Tried, stored: PasswordCredentials | None
    ) -> timedelta | None:
        """Returns how long the account stays locked for this caller; None if it is not locked.

        Reads without waiting for row locks.
        """
        locked_for = await login_throttles.locked_for(transaction, tried.account_hash)
        known = await login_origins.find(transaction, tried.account_hash, tried.origins, self._remembered)
        return None if locked_for is None or _passes(known, stored) else locked_for

    async def logged_in_there(self, transaction: ReadTransaction, tried: Tried) -> bool:
        """Returns whether the account has logged in from this address within the last 30 days."""
        there = (tried.address_hash,)
        return bool(await login_origins.find(transaction, tried.account_hash, there, _KNOWN_FOR))

    async def hold(
        self, transaction: Transaction, tried: Tried, stored: PasswordCredentials | None
    ) -> HeldThrottle:
        """Locks the account's counter until the transaction ends, so that guesses are counted one by one."""
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
        """Counts a wrong guess."""
        tried, throttle = held.tried, held.throttle
        await login_origins.count_failure(transaction, tried.account_hash, tried.origins)
        if not held.locked:
            old = throttle.now - throttle.updated_at > FAILURES_COUNT_FOR
            failures = 1 if old else throttle.failures + 1
            await login_throttles.count_failure(
                transaction, tried.account_hash, failures, _locked_until(failures, throttle.now)
            )

    async def forgive(self, transaction: Transaction, held: HeldThrottle) -> None:
        """Resets the account's failures after all required steps succeeded, unless the account is locked."""
        if not held.locked:
            await login_throttles.clear(transaction, held.tried.account_hash)

    async def remember(self, transaction: Transaction, tried: Tried, checked: PasswordCredentials) -> str:
        """Records where the account has logged in from; returns the device's token.

        The device keeps its identity if it may bypass the lock; otherwise it gets a new one.
        """
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
    """Unlocks an account immediately and resets its failures."""
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
    """Returns whether one of the origins bypasses the account's lock."""
    return stored is not None and any(
        origin.failures < FREE_FAILURES and origin.password_changed_at == stored.password_changed_at
        for origin in known
    )
