"""Refusals that are answered one after the other, for each who is refused.

A call that is refused before anything is done costs its caller nothing and the server half a millisecond: its error,
its record or count, its answer. Who holds thousands of calls and begins a new one for each that ends would have them
refused as fast as the server can, and everybody else would stand in line with them. So each user, or address where
nobody has logged in, is told of so many refusals a second; the first ones, and those of who comes seldom, at once.

What waits holds no seat, only its stream, of which a connection has few.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from contextlib import suppress

# Of each: so many a second after the first ones. Nobody waits longer than that: beyond it, they are told at once.
_PER_SECOND, _FIRST, _MOST_SECONDS = 100.0, 20, 15.0
# Users and addresses that are remembered although none of theirs waits.
_MOST_FLOWS = 1000


class Refusing:
    """Turns of those who are refused."""

    def __init__(self) -> None:
        # The loop's time at which the next one of each would be told, were there no first ones.
        self._next: dict[Hashable, float] = {}
        self._over = asyncio.Event()

    async def turn(self, flow: Hashable) -> None:
        """Returns when a call of this user or address may be told that it is refused; at once after `end`."""
        now = asyncio.get_running_loop().time()
        if flow not in self._next and len(self._next) >= _MOST_FLOWS:
            self._next = {key: then for key, then in self._next.items() if then > now}
        then = max(self._next.get(flow, now), now)
        wait = then - now - _FIRST / _PER_SECOND
        if wait >= _MOST_SECONDS:
            return
        self._next[flow] = then + 1 / _PER_SECOND
        if wait > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._over.wait()

    def end(self) -> None:
        """Lets all go on: this server is shutting down."""
        self._over.set()
