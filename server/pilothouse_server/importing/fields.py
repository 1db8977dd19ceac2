"""Reads a whole object field by field and remembers what nobody asked for.

`Fields` is one mapping of the object. Whoever converts it takes what it understands; what is left over and is not
merely a default of the API is told by its path, so that nothing is silently dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Fields:
    """One mapping, at `path` of the object; `problems` is shared by all parts of it."""

    def __init__(self, mapping: Any, path: str, problems: list[str]) -> None:
        self._left: dict[str, Any] = dict(mapping) if isinstance(mapping, dict) else {}
        self._path = path
        self.problems = problems

    def take(self, name: str, default: Any = None) -> Any:
        """A value as it is."""
        value = self._left.pop(name, None)
        return default if value is None else value

    def text(self, name: str, unless: str = "") -> str:
        """A text; empty where it is the default `unless`."""
        value = str(self.take(name, ""))
        return "" if value == unless else value

    def number(self, name: str, unless: int = 0) -> int:
        """A number; 0 where it is the default `unless`."""
        value = int(self.take(name, 0))
        return 0 if value == unless else value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(str(item) for item in self.take(name, ()))

    def labels(self, name: str) -> dict[str, str]:
        """A map of texts."""
        return {str(key): str(value) for key, value in self.take(name, {}).items()}

    def part(self, name: str) -> Fields | None:
        """A mapping within; None where there is none. `close` it when it is read."""
        value = self.take(name)
        return Fields(value, f"{self._path}.{name}", self.problems) if isinstance(value, dict) else None

    def items(self, name: str, key: str = "name") -> Iterator[Fields]:
        """The mappings of a list, each closed after its turn."""
        for index, value in enumerate(self.take(name, ())):
            word = value.get(key, index) if isinstance(value, dict) else index
            item = Fields(value, f"{self._path}.{name}[{word}]", self.problems)
            yield item
            item.close()

    def ignore(self, *names: str, **defaults: Any) -> None:
        """Pass over fields: the named ones whatever they say, the others where they say their default."""
        for name in names:
            self._left.pop(name, None)
        for name, default in defaults.items():
            if name in self._left and self._left[name] in (default, None, "", {}, []):
                del self._left[name]

    def refuse(self, name: str, why: str) -> None:
        """Note that a field cannot be represented."""
        self._left.pop(name, None)
        self.problems.append(f"{self._path}.{name}: {why}")

    def close(self) -> None:
        """Note what was not taken. Empty values say nothing."""
        for name, value in self._left.items():
            if value not in (None, "", {}, [], False):
                self.problems.append(f"{self._path}.{name}: cannot be represented")
        self._left.clear()
