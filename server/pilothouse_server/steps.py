"""Long work on the event loop, in steps: whoever else waits for the loop has it every few milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
_SHARE_SECONDS = 0.004


async def in_steps(items: Iterable[T]) -> AsyncIterator[T]:
    """The items one by one; before an item the loop is given away if those before it took their share of time."""
    since = perf_counter()
    for item in items:
        if perf_counter() - since >= _SHARE_SECONDS:
            await asyncio.sleep(0)
            since = perf_counter()
        yield item
