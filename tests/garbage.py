"""Leaks are visible only while the garbage collector is off: it would collect the cycles."""

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
