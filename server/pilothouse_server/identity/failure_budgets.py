"""Budgets of failures: one token bucket for each address, account or program.

Each attempt takes a token before anything is looked up or hashed, and a correct password gives it back. The buckets
fill slowly. Each process has its own buckets; the lock of an account, which limits guesses at one password, is in the
database.

If many honest attempts may run concurrently, use `check` and `spend`: they count failures only, so that none of these
attempts is refused because of the others.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol.token_bucket import TokenBuckets

SECONDS_EACH: Final = 0.5
# The maximum number of keys that are remembered because a log-in succeeded.
_MOST: Final = 20_000


class FailureBudgets:
    """One budget of `most` failures for each address, account or program, refilled by one each `seconds_each`.

    `message` and `reason` are those of the error for an empty budget.
    """

    def __init__(
        self,
        most: int,
        *,
        seconds_each: float = SECONDS_EACH,
        message: str = "too many failed log-ins from this address, try again later",
        reason: str = "LOGIN_LIMITED",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buckets = TokenBuckets(1 / seconds_each, most, clock=clock)
        self._message = message
        self._reason = reason
        self._succeeded: OrderedDict[str, None] = OrderedDict()

    def check(self, who: str) -> None:
        """Raises ResourceExhausted if no token is left; takes none."""
        if wait := self.seconds_until_one(who):
            raise ResourceExhausted(self._message, reason=self._reason, retry_after_seconds=max(1.0, wait))

    def seconds_until_one(self, who: str) -> float:
        """Returns the seconds until a token is available; 0.0 if one is available now."""
        return self._buckets.of(who).seconds_until_one()

    def take(self, who: str) -> None:
        """Takes a token. Raises ResourceExhausted if no token is left."""
        self.check(who)
        self.spend(who)

    def spend(self, who: str) -> None:
        """Takes a token even if none is left, for an attempt that has failed and that passed `check` before."""
        self._buckets.of(who).take()

    def give_back(self, who: str) -> None:
        """Gives a token back, for an attempt that must not count as a failure."""
        self._buckets.of(who).give_back()

    def succeeded(self, who: str) -> None:
        """Gives a token back and remembers the success, for an attempt whose password was correct."""
        self.give_back(who)
        self._succeeded[who] = None
        self._succeeded.move_to_end(who)
        while len(self._succeeded) > _MOST:
            self._succeeded.popitem(last=False)

    def is_known(self, who: str) -> bool:
        """Returns whether an attempt with this key has succeeded since this process began."""
        return who in self._succeeded
