"""Keys of labels and annotations, and names of headers, as a setting names them."""

from __future__ import annotations

import re

# Keys whose answer is remembered; a key has at most 317 characters.
_MOST_KNOWN = 4096
_HEADER = re.compile(r"[a-z0-9][a-z0-9_.-]*\*?")
_PATTERN = re.compile(r"!?[A-Za-z0-9._*-]+(?:/[A-Za-z0-9._*-]*)?")


class KeyPatterns:
    """A set of keys: patterns separated by commas, in which `*` stands for any text, also for none.

    A pattern that begins with `!` excludes keys of the others, wherever it stands. `guarding`: keys in the set are
    forbidden, so the name of a domain includes the keys below it.
    """

    def __init__(self, text: str, *, guarding: bool = False) -> None:
        words = [word for word in (word.strip() for word in text.split(",")) if word]
        inside = [word for word in words if not word.startswith("!")]
        if guarding:
            inside += [f"{word}/*" for word in inside if "/" not in word]
        self._in = _compiled(inside)
        self._out = _compiled([word[1:] for word in words if word.startswith("!")])
        # Every request has the same keys, and a long pattern costs some microseconds a key.
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
    """Returns a pattern. Raises ValueError: no key is like it."""
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(pattern)
    return pattern


def checked_header(pattern: str) -> str:
    """Returns a name in lower case, or a prefix before `*`. Raises ValueError if it is no header name."""
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
