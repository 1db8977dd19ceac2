"""Patterns in settings for keys of labels and annotations, and for names of headers."""

from __future__ import annotations

import re

# The number of keys whose results are cached; a key has at most 317 characters.
_MOST_KNOWN = 4096
_HEADER = re.compile(r"[a-z0-9][a-z0-9_.-]*\*?")
_PATTERN = re.compile(r"!?[A-Za-z0-9._*-]+(?:/[A-Za-z0-9._*-]*)?")


class KeyPatterns:
    """A set of keys: patterns separated by commas, in which `*` matches any text, including none.

    A pattern that begins with `!` excludes keys that other patterns include, wherever it stands. `guarding`: keys in
    the set are forbidden, so the name of a domain also includes the keys below it.
    """

    def __init__(self, text: str, *, guarding: bool = False) -> None:
        words = [word for word in (word.strip() for word in text.split(",")) if word]
        inside = [word for word in words if not word.startswith("!")]
        if guarding:
            inside += [f"{word}/*" for word in inside if "/" not in word]
        self._in = _compiled(inside)
        self._out = _compiled([word[1:] for word in words if word.startswith("!")])
        # Most requests have the same keys, and matching a key against a long pattern takes some microseconds.
        self._known: dict[str, bool] = {}

    def __contains__(self, key: str) -> bool:
        known = self._known.get(key)
        if known is None:
            known = self._in.fullmatch(key) is not None and self._out.fullmatch(key) is None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = known
        return known


def checked(pattern: str) -> str:
    """Returns the pattern. Raises ValueError if no key can match it."""
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(pattern)
    return pattern


def checked_header(pattern: str) -> str:
    """Returns the name in lower case, or a prefix followed by `*`. Raises ValueError if it is not a header name."""
    if not _HEADER.fullmatch(pattern):
        raise ValueError(pattern)
    return pattern


def _compiled(patterns: list[str]) -> re.Pattern[str]:
    if not patterns:
        # Matches nothing, not even an empty key.
        return re.compile(r"(?!)")
    return re.compile(
        "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns), re.DOTALL
    )
