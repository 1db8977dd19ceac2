"""A write batcher: items that arrive during a write are written together by the next one.

The first item starts a write and the others wait; the item that waited longest starts the next write, with all that
have arrived. If more items are announced, the batcher first waits for a moment, or as long as the last write took: a
single item is written immediately, and a busy server writes seldom, in large batches.

An item that cannot be written must not delay the others. If a write of several items fails, or leaves items out, each
of them is written by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Generic, TypeVar

from pilothouse_server.errors import Unavailable

Item = TypeVar("Item")
Key = TypeVar("Key")
Answer = TypeVar("Answer")

MOST_GATHER_SECONDS = 0.25
_AWAY = ("DATABASE_UNAVAILABLE", "DATABASE_BUSY", "DATABASE_FULL")


def is_away(error: Exception) -> bool:
    """Returns whether the database is away, busy or full, so that a retry of other items is useless."""
    return isinstance(error, Unavailable) and error.reason in _AWAY


class _Entry(Generic[Key, Item, Answer]):
    __slots__ = ("answer", "error", "item", "key", "over")

    def __init__(self, key: Key, item: Item) -> None:
        self.key = key
        self.item = item
        self.over = False
        self.answer: Answer | None = None
        self.error: Exception | None = None


class WriteBatcher(Generic[Key, Item, Answer]):
    """`write` gets at most `most` items and returns results by key.

    If it gets several, it may leave items out.

    Callers announce an item by `expected`.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Mapping[Key, Answer]]],
        *,
        most: int,
        gather_seconds: float,
    ) -> None:
        self._write = write
        self._most = most
        self._gather_seconds = gather_seconds
        self._took = 0.0
        self._expected: set[Key] = set()
        self._waiting: list[_Entry[Key, Item, Answer]] = []
        self._turn = asyncio.Lock()

    @contextmanager
    def expected(self, key: Key) -> Iterator[None]:
        """While this context is open, other writes wait for a moment for the item of this key."""
        self._expected.add(key)
        try:
            yield
        finally:
            self._expected.discard(key)

    async def write(self, key: Key, item: Item) -> Answer:
        """Returns the result once it is written. Raises the exception of the write."""
        self._expected.discard(key)
        entry: _Entry[Key, Item, Answer] = _Entry(key, item)
        self._waiting.append(entry)
        try:
            async with self._turn:
                if not entry.over:
                    await self._write_some()
        finally:
            if not entry.over:
                self._waiting.remove(entry)
        if entry.error is not None:
            raise entry.error
        if entry.answer is not None:
            return entry.answer
        return (await self._write([item]))[key]

    async def _write_some(self) -> None:
        """Writes waiting items, the caller's own first: the lock serves callers in order of arrival."""
        if self._expected and len(self._waiting) < self._most:
            await asyncio.sleep(max(self._gather_seconds, min(self._took, MOST_GATHER_SECONDS)))
        entries = self._waiting[: self._most]
        began = monotonic()
        try:
            answers = await self._write([entry.item for entry in entries])
        except Exception as error:  # noqa: BLE001 - passed on to the callers concerned
            together = len(entries) > 1 and not is_away(error)
            for entry in entries:
                entry.error = None if together else error
            answers = {}
        self._took = monotonic() - began
        del self._waiting[: len(entries)]
        for entry in entries:
            entry.over, entry.answer = True, answers.get(entry.key)
