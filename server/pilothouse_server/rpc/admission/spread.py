"""What many would do in the same moment, done one after the other.

A call that goes to a cluster, or is refused there and told so by an error, a record or a count, and an answer, takes
half a millisecond of the event loop. Clients that begin together are refused together, wait equally long and come
together again, so a hundred of them would hold up everybody else for a twentieth of a second, each second. One by one
they hold up nobody, and have parted when they come again.
"""

from __future__ import annotations

import asyncio

# So many a second have their turn; nobody waits for it longer than that.
_PER_SECOND, _MOST_SECONDS = 250.0, 1.0


class Spread:
    """Turns that come one after the other. The first of a while has it at once."""

    def __init__(self) -> None:
        self._next = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether whoever comes now has its turn at once."""
        return self._next <= asyncio.get_running_loop().time()

    async def turn(self) -> None:
        """Returns when it is the caller's turn, or at once where too many wait for theirs already."""
        now = asyncio.get_running_loop().time()
        wait = self._next - now
        if wait >= _MOST_SECONDS:
            return
        self._next = max(self._next, now) + 1 / _PER_SECOND
        if wait > 0:
            await asyncio.sleep(wait)
