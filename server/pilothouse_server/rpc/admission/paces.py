"""What a caller may have so many of in a second: the first ones at once, the others one after the other.

Refusals: a call that is refused before anything is done costs its caller nothing and the server two milliseconds: its
error, its record or count, its answer. Who holds thousands of calls and begins a new one for each that ends would have
them refused as fast as the server can, and everybody else would stand in line with them.

Openings of streams: each has its request checked, its first state read and sent, and two records, which takes five
milliseconds. Who opens and leaves a hundred watches a second would have the event loop for himself.

Calls that go to a cluster, or are refused there, half a millisecond each: clients that begin together are refused
together, wait equally long and come together again, so a hundred of them would hold up everybody else for a twentieth
of a second, each second. One by one they hold up nobody, and have parted when they come again.

What waits for a refusal holds no seat, only its stream, of which a connection has few; what waits to be opened holds
the seat of one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable

# Users and addresses that are remembered although none of theirs waits.
_MOST_FLOWS = 1000
# At the end they go on so far apart.
_LET_GO_SECONDS = 0.002
# Who would wait for too long waits for so much of the longest time at least: all at once would keep others waiting.
_LEAST_OF_MOST = 0.5


class Paces:
    """Turns of each user, or address where nobody has logged in: `first` at once, and `per_second` after those. Nobody
    waits for longer than `most_seconds`, and who would, for half of them or more, each for another time.
    """

    def __init__(self, per_second: float, first: int, most_seconds: float) -> None:
        self._per_second = per_second
        self._first = first
        self._most_seconds = most_seconds
        # The loop's time at which the next one of each would have its turn, were there no first ones.
        self._next: dict[Hashable, float] = {}
        self._over = asyncio.Event()
        # How many went on since the end.
        self._let_go = 0

    async def turn(self, flow: Hashable) -> None:
        """Returns when it is the turn of a call of this user or address; soon after `end`."""
        now = asyncio.get_running_loop().time()
        if flow not in self._next and len(self._next) >= _MOST_FLOWS:
            self._next = {key: then for key, then in self._next.items() if then > now}
        then = max(self._next.get(flow, now), now)
        wait = then - now - self._first / self._per_second
        has_turn = wait < self._most_seconds
        if has_turn:
            self._next[flow] = then + 1 / self._per_second
        else:
            wait = self._most_seconds * random.uniform(_LEAST_OF_MOST, 1.0)  # noqa: S311 - it is no secret
        if wait <= 0:
            return
        try:
            async with asyncio.timeout(wait):
                await self._over.wait()
        except TimeoutError:
            return
        except asyncio.CancelledError:
            # Another may have its turn.
            if has_turn and flow in self._next:
                self._next[flow] -= 1 / self._per_second
            raise
        # All in one moment would keep everybody else waiting, who is to be told that this server shuts down.
        self._let_go += 1
        await asyncio.sleep(self._let_go * _LET_GO_SECONDS)

    def end(self) -> None:
        """Lets all go on, in a short time: this server is shutting down."""
        self._over.set()
