"""What is kept is seen only while the interpreter does not look for cycles: it would find them."""

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
