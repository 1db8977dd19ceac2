"""Finds values in a cluster's object that no row can store: NUL, half of a surrogate pair, a number beyond 64 bits.

In an object that is only observed, such characters are replaced (`kubernetes.fingerprints`). But an object that is
taken over is applied again, and a replaced character would change the running container. So the object is refused,
and the problem names the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pilothouse_manifests.sources import INT64_MAXIMUM
from pilothouse_server.kubernetes.objects import Manifest

# Fields that the cluster writes, which are not taken over.
_LEFT_THERE: Final = ("status", "managedFields")
_MOST: Final = 5
_LONGEST_KEY: Final = 100


def problems(found: Manifest) -> list[str]:
    """Returns the first five fields that cannot be taken over, and why."""
    told: list[str] = []
    waiting: list[tuple[str, Any]] = [("", found)]
    while waiting and len(told) < _MOST:
        path, value = waiting.pop()
        if why := _problem(value):
            told.append(f"{path}: {why}")
        elif isinstance(value, dict):
            waiting += reversed([*_within(path, value)])
            told += [f"{path or 'it'}: the name of a field {why}" for key in value if (why := _problem(key))]
        elif isinstance(value, list):
            waiting += reversed([(f"{path}[{index}]", each) for index, each in enumerate(value)])
    return told[:_MOST]


def _within(path: str, value: Manifest) -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if key not in _LEFT_THERE:
            shown = key[:_LONGEST_KEY].encode("ascii", "backslashreplace").decode()
            yield (f"{path}.{shown}" if path else shown), each


def _problem(value: Any) -> str:
    if isinstance(value, int) and not -INT64_MAXIMUM - 1 <= value <= INT64_MAXIMUM:
        return "has a number beyond 64 bits"
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return ""
    if "\0" in value:
        return "has NUL, which no text may contain"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "has half of a surrogate pair"
    return ""
