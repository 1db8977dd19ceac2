"""The failures that an address, an account or a program may cause before it has to wait: one token bucket for each.

Each attempt takes a token before anything is looked up or hashed, and a right password returns it. The buckets fill
slowly. Each process has its own; the lock of an account, which bounds guesses at one password, is in the database.

If many honest attempts may be in progress together, `check` and `spend` count failures only, so that none of these
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
# Addresses that are remembered because they logged in.
_MOST: Final = 20_000


class FailureBudgets:
    """One budget of `most` failures for each address, account or program, and one more each `seconds_each`.

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
        """Raises ResourceExhausted if none is left; takes nothing."""
        if wait := self.seconds_until_one(who):
            raise ResourceExhausted(self._message, reason=self._reason, retry_after_seconds=max(1.0, wait))

    def seconds_until_one(self, who: str) -> float:
        """Returns the seconds until one is left; 0.0 if one is."""
        return self._buckets.of(who).seconds_until_one()

    def take(self, who: str) -> None:
        """Takes a token. Raises ResourceExhausted if none is left."""
        self.check(who)
        self.spend(who)

    def spend(self, who: str) -> None:
        """Takes a token even if none is left: the attempt has failed, and began while there was one."""
        self._buckets.of(who).take()

    def give_back(self, who: str) -> None:
        """Gives a token back: the attempt was refused before it began."""
        self._buckets.of(who).give_back()

    def succeeded(self, who: str) -> None:
        """Gives a token back: the password was right."""
        self.give_back(who)
        self._succeeded[who] = None
        self._succeeded.move_to_end(who)
        while len(self._succeeded) > _MOST:
            self._succeeded.popitem(last=False)

    def is_known(self, who: str) -> bool:
        """Whether somebody logged in from there since this process began."""
        return who in self._succeeded
