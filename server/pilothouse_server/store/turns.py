"""One call at a time for each key in this process; the others stand in line, with nothing held.

Replays of one `request_id` come in numbers: a client that hears nothing asks again, and a broken one asks a hundred
times. Whoever waits here holds no connection and no lock, and is woken once: by its turn, or by the news that the
question is answered, so that those who wait need not go one after another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable


class Turns:
    """The lines of this process; at most `most_waiting` stand in all of them together."""

    def __init__(self, *, most_waiting: int = 1_000) -> None:
        self._lines: dict[Hashable, deque[asyncio.Future[bool]]] = {}
        self._most_waiting = most_waiting
        self._waiting = 0

    async def take(self, key: Hashable, seconds: float) -> bool:
        """True: it is the caller's turn until `give_back`. False: whose turn it was has answered.

        Raises:
            TimeoutError: neither within so many seconds, or too many wait already.
        """
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = deque()
            return True
        if self._waiting >= self._most_waiting:
            raise TimeoutError
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        line.append(turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                return await turn
        except BaseException:
            # It came at the very moment in which its taker was gone.
            if turn.done() and not turn.cancelled() and turn.result():
                self.give_back(key)
            raise
        finally:
            self._waiting -= 1

    def give_back(self, key: Hashable, *, answered: bool = False) -> None:
        """Ends a turn: the next one's begins, or where the question is `answered` all who wait are told."""
        line = self._lines[key]
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(not answered)
                if not answered:
                    return
        del self._lines[key]
