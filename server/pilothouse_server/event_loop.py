"""Cooperative work on the event loop: a long loop gives it away every few milliseconds, so that others run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
_SHARE_SECONDS = 0.004


async def cooperatively(items: Iterable[T]) -> AsyncIterator[T]:
    """Yields the items one by one, and to the event loop before an item once its share of time is used up."""
    since = perf_counter()
    for item in items:
        if perf_counter() - since >= _SHARE_SECONDS:
            await asyncio.sleep(0)
            since = perf_counter()
        yield item
