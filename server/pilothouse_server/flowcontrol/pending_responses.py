"""Responses of unary calls that their readers have not read yet.

A call releases its seats when its response is made. gRPC buffers the response until it can be written to the
connection, and the client decides when: a client that opens no flow-control window reads nothing while the connection
lives. So the bytes of each user are counted, and a user with too many is refused further calls until it reads some of
them, or its connections end. Only large responses count: a connection has few calls, and small responses do not add up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from pilothouse_server.flowcontrol.fair_queue import too_many_calls

LARGE_BYTES: Final = 32 * 1024
_MEBIBYTE = 1024 * 1024
# The first number bounds the bytes of one user: two of the largest responses. While all users together have the second
# number or more, the third bounds each user instead.
_MOST_OF_ONE, _MOST, _FEW = 32 * _MEBIBYTE, 128 * _MEBIBYTE, 4 * _MEBIBYTE


class PendingResponses:
    """The bytes of large responses that each user or address has not read.

    An address counts for calls without a log-in. `on_refused` is called with each refusal.
    """

    def __init__(self, on_refused: Callable[[], None] = lambda: None) -> None:
        self.of: dict[Hashable, int] = {}
        self.bytes = 0
        self._on_refused = on_refused

    def check(self, user: Hashable) -> None:
        """Raises ResourceExhausted if the user has too many unread bytes."""
        if self.of.get(user, 0) < (_MOST_OF_ONE if self.bytes < _MOST else _FEW):
            return
        self._on_refused()
        raise too_many_calls(
            "too many bytes of this caller's responses are pending; read those first", "unsent_answers"
        )

    def add(self, user: Hashable, size: int, call: asyncio.Task[object]) -> None:
        """Counts a response of `size` bytes until `call` ends, the task that sends it."""
        self._add(user, size)
        call.add_done_callback(lambda _call: self._add(user, -size))

    def _add(self, user: Hashable, size: int) -> None:
        self.bytes += size
        left = self.of.get(user, 0) + size
        if left:
            self.of[user] = left
        else:
            del self.of[user]
