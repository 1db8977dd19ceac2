"""Random UUIDs (version 4) as text, for ids that are needed thousands of times per second.

A system call for each 16 bytes takes longer than all other work for an id, and so does the standard library's class. So
the bytes of many ids are requested with one system call, and the text is built from them.
"""

from __future__ import annotations

import os
from typing import Final

_AT_ONCE: Final = 64
_DIGITS: Final = 32
# The two highest bits of the digit with the UUID's variant are 1 and 0.
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_unused: list[str] = []
# After a fork the two processes must not return the same ids.
os.register_at_fork(after_in_child=_unused.clear)


def random_id() -> str:
    """Returns a new id. Call it from only one thread of a process."""
    if not _unused:
        digits = os.urandom(_AT_ONCE * _DIGITS // 2).hex()
        _unused.extend(_uuid(digits[at : at + _DIGITS]) for at in range(0, len(digits), _DIGITS))
    return _unused.pop()


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
