"""Blocks without the garbage collector.

Leaks are visible only while it is off: it would collect the cycles. And a parser that is handed a text of too many
levels ends at the limit of recursion: a finalizer that the collector calls there fails, in whichever test made it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_looks() -> Iterator[None]:
    """No look for cycles until the end of the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
