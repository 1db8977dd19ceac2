"""Paths in JSON documents as an administrator lists them: `spec.users.password`, `metadata.annotations[a.example/b]`.

A step is a key, `*` for any key, or a key in brackets, which may contain dots. Items of lists need no step: a path
continues in each item, so no list hides a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_STEP = re.compile(r"[A-Za-z0-9_*-]+|\[[^\[\]]+\]")
_MOST_STEPS = 64


def parsed(path: str) -> tuple[str, ...]:
    """Returns the steps of a path. Raises ValueError if the text is not a path."""
    steps: list[str] = []
    at = 0
    while at < len(path):
        # A dot precedes each key except the first one; brackets follow without a dot.
        if at and path[at] == ".":
            at += 1
        found = _STEP.match(path, at)
        if found is None or (found[0][0] == "[") == (at == 0 or path[at - 1] == "."):
            raise ValueError(path)
        steps.append(found[0].strip("[]"))
        at = found.end()
    if not steps or len(steps) > _MOST_STEPS:
        raise ValueError(path)
    return tuple(steps)


def selected(document: Any, steps: tuple[str, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yields the place and the value of each field that a path selects, unordered.

    `document`: any JSON value.
    """
    pending: list[tuple[tuple[str | int, ...], Any, int]] = [((), document, 0)]
    while pending:
        place, value, at = pending.pop()
        if isinstance(value, list) and at < len(steps):
            pending += [((*place, number), item, at) for number, item in enumerate(value)]
        elif at == len(steps):
            yield place, value
        elif isinstance(value, dict):
            step = steps[at]
            keys = list(value) if step == "*" else [step] if step in value else []
            pending += [((*place, key), value[key], at + 1) for key in keys]
