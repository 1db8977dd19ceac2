"""The queues in which log-ins wait until their passwords are verified.

A name is *known* at an address if the attempt has a device token of the account, or if the account logged in from the
address in the last 30 days. A known name has its own budget of failures at the address, and its attempts wait for a
hash in the queue for known attempts (`passwords`).

All other names at an address share the budget of the address. They take turns by name, two at a time, so that a caller
who tries one name a thousand times delays only that name. While the budget is empty, each attempt waits until one more
failure is allowed. The number of waiting attempts is limited (`flowcontrol.fair_queue`): if the queue is full, the name
with the most attempts loses its newest one. The state of an address is dropped with its last attempt.

One query finds out whether a name is known; it runs whether or not the account exists. These queries are queued too, by
address, so that a flood does not occupy all connections.
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

# Per address: the number of names that are verified concurrently, and the number of waiting attempts.
_AT_ONCE: Final = 2
_WAITING: Final = 64
# The number of concurrent queries whether a name is known, in total and per address, and the number of waiting ones.
_LOOKS: Final = 4
_LOOKS_OF_ONE: Final = 2
_LOOKS_WAITING: Final = 1000


@dataclass(frozen=True, slots=True)
class Whose:
    """The keys of an attempt: the hash of the account, the address, and whether the account is known there."""

    address: str
    account: str
    known: bool

    @property
    def budget(self) -> str:
        """Returns the key of the failure budget, which is also the key in the queue for a hash.

        The key contains the address, so a thief with a device's token cannot exhaust the owner's budget elsewhere.
        """
        return of_account(self.account, self.address) if self.known else self.address


def of_account(account: str, address: str) -> str:
    """Returns the key of the budget of an account at an address."""
    return f"account {account} at {address}"


class LoginTurns:
    """The queues of one process.

    `budgets` are the failure budgets; an attempt waits at most `wait_seconds`.
    """

    def __init__(self, passwords: Passwords, budgets: FailureBudgets, *, wait_seconds: float) -> None:
        self._passwords = passwords
        self._budgets = budgets
        self._names = QueueBounds(_AT_ONCE, 1, _WAITING, _WAITING, wait_seconds)
        self._of_addresses: dict[str, FairQueue] = {}
        looks = QueueBounds(_LOOKS, _LOOKS_OF_ONE, _LOOKS_WAITING, _LOOKS_WAITING // 2, wait_seconds)
        self._looks = FairQueue("log-ins", looks, refusal=lambda _of_caller: login_busy())

    async def look(self, address: str, is_known: Callable[[], Awaitable[bool]]) -> bool:
        """Returns whether a name is known at an address; runs the query `is_known` when its turn has come.

        Raises:
            ResourceExhausted: LOGIN_BUSY.
        """
        async with self._looks.seat(address):
            return await is_known()

    @asynccontextmanager
    async def turn(self, whose: Whose) -> AsyncIterator[None]:
        """Waits for the turn to verify a password, and takes one token of the budget.

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
        # The budget refills with time, so there is no event to wait for.
        while (seconds := self._budgets.seconds_until_one(address)) and loop.time() + seconds <= until:  # noqa: ASYNC110
            await asyncio.sleep(seconds)
        self._budgets.take(address)
