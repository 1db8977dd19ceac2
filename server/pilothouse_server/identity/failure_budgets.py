"""How many failed log-ins an address may make before it waits, whichever accounts it tries.

Each attempt takes one of a budget before anything is looked up or hashed, and a right password gives it back. An empty
budget fills slowly. Each process has its own; the lock of an account, which is what bounds guesses at one password,
stands in the database.
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
    """One budget of `most` failures for each address or account."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        # What is left, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._succeeded: OrderedDict[str, None] = OrderedDict()

    def take(self, who: str) -> None:
        """Takes one. Raises ResourceExhausted (LOGIN_LIMITED) where none is left."""
        left = self._now_left(who)
        if left < 1.0:
            raise ResourceExhausted(
                "too many failed log-ins from this address, try again later",
                reason="LOGIN_LIMITED",
                retry_after_seconds=max(1.0, (1.0 - left) * SECONDS_EACH),
            )
        self._keep(who, left - 1.0)

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
        return min(float(self._most), left + (self._clock() - since) / SECONDS_EACH)

    def _keep(self, who: str, left: float) -> None:
        self._left[who] = (min(float(self._most), left), self._clock())
        self._left.move_to_end(who)
        while len(self._left) > _MOST:
            self._left.popitem(last=False)
