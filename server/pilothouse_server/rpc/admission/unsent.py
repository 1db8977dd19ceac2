"""Answers of unary calls that are made and that their readers have not taken yet.

A call gives its seats back when its answer is made. gRPC keeps the answer until the connection has taken it, which is
for the client to say: one that opens no window takes nothing, for as long as the connection lives. So what each user
holds there is counted, and who has too much is refused further calls until it takes some, or its connections end. Only
large answers are counted: a connection has not many calls, and small ones make little of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from pilothouse_server.rpc.admission.limiter import too_many_calls

LARGE_BYTES: Final = 32 * 1024
_MEBIBYTE = 1024 * 1024
# Of a user: two of the largest answers. Where all together have more than the second, the third is the bound of each.
_MOST_OF_ONE, _MOST, _FEW = 32 * _MEBIBYTE, 128 * _MEBIBYTE, 4 * _MEBIBYTE


class Unsent:
    """How many bytes of large answers each user, or address where nobody has logged in, has not taken.

    `on_refused` is called with each refusal.
    """

    def __init__(self, on_refused: Callable[[], None] = lambda: None) -> None:
        self.of: dict[Hashable, int] = {}
        self.bytes = 0
        self._on_refused = on_refused

    def check(self, user: Hashable) -> None:
        """Raises ResourceExhausted where the user has too much."""
        if self.of.get(user, 0) < (_MOST_OF_ONE if self.bytes < _MOST else _FEW):
            return
        self._on_refused()
        raise too_many_calls(
            "too much of your answers is not taken yet: read those that are there", "unsent_answers"
        )

    def hold(self, user: Hashable, size: int, call: asyncio.Task[object]) -> None:
        """Counts an answer of so many bytes until the task of its call ends: it sends the answer."""
        self._add(user, size)
        call.add_done_callback(lambda _call: self._add(user, -size))

    def _add(self, user: Hashable, size: int) -> None:
        self.bytes += size
        left = self.of.get(user, 0) + size
        if left:
            self.of[user] = left
        else:
            del self.of[user]
