"""Lists of names by an administrator: patterns in which `*` matches any text, including an empty one."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PATTERN = re.compile(r"[a-z0-9*](?:[a-z0-9.*-]*[a-z0-9*])?")


def pattern_problem(pattern: str) -> str | None:
    """Returns the rule that a pattern breaks; None if the pattern is valid."""
    if _PATTERN.fullmatch(pattern):
        return None
    return "must have only lower-case letters, digits, - . and *, and not begin or end with - or ., such as shared-*"


def is_listed(name: str, patterns: Iterable[str]) -> bool:
    """Returns whether a name matches one of these patterns."""
    return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    """Returns whether a name matches a pattern.

    It compares part by part: the time of a regular expression grows with its number of `*`."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    *middle, last = others
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
