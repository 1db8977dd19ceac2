"""The turns in which passwords are verified.

A name is *known* at an address if it shows a device token of the account there, or logged in from there in the last 30
days. A known name has a budget of failures of its own, and its attempts wait for a hash in the queue of known ones
(`passwords`).

All other names of an address share the budget of the address. They take turns by name, so that somebody who tries one
name a thousand times waits for himself: two at a time, and when the budget is empty each waits until one more failure
is allowed. The names that wait are bounded (`flowcontrol.fair_queue`): if all places are taken, the name with the most
attempts loses its newest one. The state of an address goes with its last attempt.

Whether a name is known is one row of the database, which is read whether there is such an account or not. These queries
have turns as well, by address, so that a flood does not take all connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol.fair_queue import FairQueue, QueueBounds
from pilothouse_server.identity.credentials.passwords import Passwords, login_busy
from pilothouse_server.identity.failure_budgets import FailureBudgets

# Of one address: names that are verified at a time, and attempts that wait.
_AT_ONCE: Final = 2
_WAITING: Final = 64
# Looks whether a name is known: of all, and of one address.
_LOOKS: Final = 4
_LOOKS_OF_ONE: Final = 2
_LOOKS_WAITING: Final = 1000


@dataclass(frozen=True, slots=True)
class Whose:
    """The attempt of an `account`, its hash, at an `address`."""

    address: str
    account: str
    known: bool

    @property
    def budget(self) -> str:
        """Returns the key of the failure budget and of the row in the queue for a hash.

        A thief of a device's token uses up the budget of the thief's own address, not that of its owner.
        """
        return of_account(self.account, self.address) if self.known else self.address


def of_account(account: str, address: str) -> str:
    """The budget of an account at an address."""
    return f"account {account} at {address}"


class LoginTurns:
    """The turns of one process. `budgets` are those of failures; an attempt waits `wait_seconds` at most."""

    def __init__(self, passwords: Passwords, budgets: FailureBudgets, *, wait_seconds: float) -> None:
        self._passwords = passwords
        self._budgets = budgets
        self._names = QueueBounds(_AT_ONCE, 1, _WAITING, _WAITING, wait_seconds)
        self._of_addresses: dict[str, FairQueue] = {}
        looks = QueueBounds(_LOOKS, _LOOKS_OF_ONE, _LOOKS_WAITING, _LOOKS_WAITING // 2, wait_seconds)
        self._looks = FairQueue("log-ins", looks, refusal=lambda _of_caller: login_busy())

    async def look(self, address: str, is_known: Callable[[], Awaitable[bool]]) -> bool:
        """Returns whether a name is known at an address; `is_known` reads that in a turn. Raises
        ResourceExhausted.
        """
        async with self._looks.seat(address):
            return await is_known()

    @asynccontextmanager
    async def turn(self, whose: Whose) -> AsyncIterator[None]:
        """A turn to verify a password; takes one of the budget.

        Raises:
            ResourceExhausted: LOGIN_LIMITED, LOGIN_BUSY.
        """
        async with self._budgeted(whose):
            who, begun = whose.budget, False
            try:
                async with self._passwords.turn(who, known=whose.known or self._budgets.is_known(who)):
                    begun = True
                    yield
            except ResourceExhausted:
                if not begun:
                    self._budgets.give_back(who)
                raise

    @asynccontextmanager
    async def _budgeted(self, whose: Whose) -> AsyncIterator[None]:
        if whose.known:
            self._budgets.take(whose.budget)
            yield
            return
        address = whose.address
        names = self._of_addresses.setdefault(address, FairQueue("log-ins", self._names))
        until = asyncio.get_running_loop().time() + self._names.wait_seconds
        try:
            await self._take(names, whose, until)
            try:
                await self._one_is_left(address, until)
                yield
            finally:
                names.release(whose.account)
        finally:
            if not names.flows and self._of_addresses.get(address) is names:
                del self._of_addresses[address]

    async def _take(self, names: FairQueue, whose: Whose, until: float) -> None:
        try:
            await names.acquire(whose.account, 1, until)
        except ResourceExhausted:
            self._budgets.check(whose.address)
            raise login_busy() from None

    async def _one_is_left(self, address: str, until: float) -> None:
        """Waits for a token of the address's budget, and takes it."""
        loop = asyncio.get_running_loop()
        # It fills with time; nobody could set an event.
        while (seconds := self._budgets.seconds_until_one(address)) and loop.time() + seconds <= until:  # noqa: ASYNC110
            await asyncio.sleep(seconds)
        self._budgets.take(address)
