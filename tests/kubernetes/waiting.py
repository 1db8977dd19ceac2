"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
PERIOD_SECONDS = 0.02


async def eventually(
    look: Callable[[], Awaitable[T]], holds: Callable[[T], object], *, seconds: float = 20.0
) -> T:
    """Look until `holds`; the deadline's failure shows what was seen last."""
    ends = asyncio.get_running_loop().time() + seconds
    while not holds(seen := await look()):
        if asyncio.get_running_loop().time() > ends:
            raise AssertionError(f"not so within {seconds} s; last seen: {seen!r}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_SECONDS):
                await asyncio.Event().wait()
    return seen
