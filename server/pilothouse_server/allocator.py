"""Large buffers that are freed go back to the system.

glibc takes a large block from the system and gives it back when it is freed, but learns from that: the next one of up
to that size comes from the heap, and stays there. The buffer of one password's hash, 19 MiB, is then kept for good. A
threshold that is set is not learnt any more.
"""

from __future__ import annotations

import ctypes

# From malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1024 * 1024


def is_glibc() -> bool:
    """Whether the C library is the one whose allocator this is about."""
    try:
        return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    except (OSError, TypeError):
        return False


def give_back_large_buffers() -> bool:
    """To be called once, before the first is freed. Returns False where the C library is not glibc: nothing is done."""
    if not is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Setting one threshold fixes both, and the other's first value would trim the heap at every turn.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_TRIM_THRESHOLD, _LARGE_BYTES))
