"""Keys of labels and annotations as a setting names them."""

from __future__ import annotations

import re


class KeyPatterns:
    """A set of keys: patterns separated by commas, in which `*` stands for any text, also for none.

    A pattern that begins with `!` takes out again what the others name, wherever it stands.
    """

    def __init__(self, text: str) -> None:
        words = [word for word in (word.strip() for word in text.split(",")) if word]
        self._in = _compiled([word for word in words if not word.startswith("!")])
        self._out = _compiled([word[1:] for word in words if word.startswith("!")])

    def __contains__(self, key: str) -> bool:
        return self._in.fullmatch(key) is not None and self._out.fullmatch(key) is None


def _compiled(patterns: list[str]) -> re.Pattern[str]:
    if not patterns:
        # Matches nothing, not even an empty key.
        return re.compile(r"(?!)")
    return re.compile(
        "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns), re.DOTALL
    )
