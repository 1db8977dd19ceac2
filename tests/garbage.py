"""Blocks without the garbage collector.

Leaks are visible only while the collector is off: it would collect the cycles. Also, a parser that gets a too deeply
nested text ends at the recursion limit, and a finalizer that the collector calls there fails, whichever test created
the object.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_looks() -> Iterator[None]:
    """Turns the garbage collector off until the end of the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
