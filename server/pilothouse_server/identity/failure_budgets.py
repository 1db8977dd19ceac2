"""How many failures an address, an account or a program may cause before it waits.

Each attempt takes one of a budget before anything is looked up or hashed, and a right password gives it back. An empty
budget fills slowly. Each process has its own; the lock of an account, which is what bounds guesses at one password,
stands in the database.

Where many honest attempts may be under way together, `check` and `spend` count failures only, so that none of these
attempts is refused because of the others.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from pilothouse_server.errors import ResourceExhausted

SECONDS_EACH: Final = 0.5
# Those that were used least lately are forgotten beyond.
_MOST: Final = 20_000


class FailureBudgets:
    """One budget of `most` failures for each address, account or program, one more each `seconds_each`.

    `message` and `reason` are those of the error where a budget is empty.
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
        self._most = most
        self._seconds_each = seconds_each
        self._message = message
        self._reason = reason
        self._clock = clock
        # What is left, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._succeeded: OrderedDict[str, None] = OrderedDict()

    def check(self, who: str) -> None:
        """Raises ResourceExhausted where none is left; takes nothing."""
        if wait := self.seconds_until_one(who):
            raise ResourceExhausted(self._message, reason=self._reason, retry_after_seconds=max(1.0, wait))

    def seconds_until_one(self, who: str) -> float:
        """How long until one is left; 0.0 where one is."""
        return max(0.0, (1.0 - self._now_left(who)) * self._seconds_each)

    def take(self, who: str) -> None:
        """Takes one. Raises ResourceExhausted where none is left."""
        self.check(who)
        self.spend(who)

    def spend(self, who: str) -> None:
        """Takes one although none may be left: the attempt has failed, and was begun while one was."""
        self._keep(who, self._now_left(who) - 1.0)

    def give_back(self, who: str) -> None:
        """It was not needed: the attempt was refused before it began."""
        self._keep(who, self._now_left(who) + 1.0)

    def succeeded(self, who: str) -> None:
        """It was not needed: the password was right."""
        self.give_back(who)
        self._succeeded[who] = None
        self._succeeded.move_to_end(who)
        while len(self._succeeded) > _MOST:
            self._succeeded.popitem(last=False)

    def is_known(self, who: str) -> bool:
        """Whether somebody logged in from there since this process began."""
        return who in self._succeeded

    def _now_left(self, who: str) -> float:
        left, since = self._left.get(who, (float(self._most), 0.0))
        return min(float(self._most), left + (self._clock() - since) / self._seconds_each)

    def _keep(self, who: str, left: float) -> None:
        self._left[who] = (min(float(self._most), left), self._clock())
        self._left.move_to_end(who)
        while len(self._left) > _MOST:
            self._left.popitem(last=False)
