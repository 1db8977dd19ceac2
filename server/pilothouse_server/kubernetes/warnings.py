"""Warnings of an API server: the `Warning` headers of its responses to writes that were accepted.

Pod Security, webhooks and deprecated versions send them. Methods of the client do not return them; instead, `noted`
collects the headers of all writes within its block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice

from pilothouse_server.kubernetes.errors import shown

# The most warnings of the writes for one object, and the most characters of each.
MOST = 20
_LENGTH = 1000
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_QUOTED = re.compile(r"\\(.)")
_noted: ContextVar[dict[str, None] | None] = ContextVar("warnings of writes", default=None)


@contextmanager
def noted() -> Iterator[dict[str, None]]:
    """Collects the warnings of the writes within, each once, as keys of the dictionary that it yields."""
    found: dict[str, None] = {}
    before = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(before)


def note(headers: Iterable[str]) -> None:
    """Records the texts of `Warning` headers (RFC 7234: `299 - "text"`)."""
    found = _noted.get()
    if found is None:
        return
    texts = (_QUOTED.sub(r"\1", each[1]) for header in headers for each in _WARNING.finditer(header))
    for text in islice(texts, MOST):
        if len(found) < MOST:
            found[shown(text)[:_LENGTH]] = None
