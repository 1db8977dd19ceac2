"""Reads the file of a setting as YAML (JSON is YAML), entry by entry.

Error messages name the setting, the entry and the broken rule. Parsing is strict: no duplicate keys, no anchors, no
tags, and no truth values except `true` and `false`. An unknown key is an error. So a misspelt key stops the server at
its start, and does not admit a user who should be refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from pilothouse_server.settings.model import SettingsError

MOST_BYTES: Final = 256 * 1024
_DEEPEST: Final = 10
Scalar = str | int | bool


class DocumentEntry:
    """One mapping of a file. `place` is its place for messages: the setting, and the path to the mapping."""

    def __init__(self, place: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{place}: must be a mapping of names to values")
        self.place = place
        self._values: Mapping[str, object] = value
        self._asked: set[str] = set()

    def given(self, name: str) -> bool:
        """Returns whether the entry has this key with a value that is not null."""
        return self._take(name) is not None

    def text(self, name: str, default: str | None = None, *, most: int = 1000) -> str:
        """Returns a text of 1 to `most` characters; `default` if the key is missing.

        Raises SettingsError, also if the key is missing and there is no default.
        """
        value = self._take(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable():
            raise self.wrong(name, f"must be a text of 1 to {most} printable characters")
        return value

    def texts(self, name: str, default: Sequence[str] | None = None, *, most: int = 100) -> tuple[str, ...]:
        """Returns a list of 1 to `most` different texts; `default` if the key is missing.

        Raises SettingsError, also if the key is missing and there is no default.
        """
        value = self._take(name)
        if value is None and default is not None:
            return tuple(default)
        good = isinstance(value, list) and all(isinstance(each, str) and each for each in value)
        if not isinstance(value, list) or not good or not 1 <= len(set(value)) == len(value) <= most:
            raise self.wrong(name, f"must be a list of 1 to {most} different texts, none of them empty")
        return tuple(value)

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """Returns a whole number within bounds; `default` if the key is missing. Raises SettingsError."""
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, f"must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Returns true or false; `default` if the key is missing. Raises SettingsError."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Returns one of several words; `default` if the key is missing. Raises SettingsError."""
        value = self.text(name, default)
        if value not in choices:
            raise self.wrong(name, f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return value

    def scalar(self, name: str) -> Scalar:
        """Returns a text, a whole number, true or false. Raises SettingsError."""
        value = self._take(name)
        if not isinstance(value, str | int):
            raise self.wrong(name, "must be a text, a whole number, true or false")
        return value

    def path_of_claim(self, name: str) -> tuple[str, ...]:
        """Returns the path of a claim, which the file gives as one name or a list of names. Raises SettingsError."""
        if isinstance(self._take(name), str):
            return (self.text(name),)
        return self.texts(name, most=5)

    def entries(self, name: str, *, needed: bool = False, most: int = 500) -> list[DocumentEntry]:
        """Returns the mappings of a list as entries; an empty list if the key is missing.

        Raises SettingsError, also if the key is missing although it is `needed`.
        """
        value = self._take(name)
        if value is None and not needed:
            return []
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise self.wrong(name, f"must be a list of 1 to {most} entries")
        return [DocumentEntry(f"{self.place}.{name}[{index}]", each) for index, each in enumerate(value)]

    def mapping(self, name: str) -> DocumentEntry | None:
        """Returns the mapping of a key; None if the key is missing. Raises SettingsError."""
        value = self._take(name)
        return None if value is None else DocumentEntry(f"{self.place}.{name}", value)

    def text_values(self, name: str, *, most: int = 20) -> dict[str, str]:
        """Returns a mapping of texts to texts; empty if the key is missing. Raises SettingsError."""
        value = self._take(name)
        if value is None:
            return {}
        good = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        if not isinstance(value, dict) or not good or len(value) > most:
            raise self.wrong(name, f"must be a mapping of at most {most} names to texts")
        return dict(value)

    def finish(self) -> None:
        """Raises SettingsError if the entry has unknown keys."""
        unknown = sorted(set(self._values) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked))
            raise SettingsError(f"{self.place}.{unknown[0]}: is not a known key; the known keys are {known}")

    def wrong(self, name: str, rule: str) -> SettingsError:
        """Returns the error for one key of this entry."""
        return SettingsError(f"{self.place}.{name}: {rule}")

    def _take(self, name: str) -> object:
        self._asked.add(name)
        return self._values.get(name)


def read_entry(setting: str, path: Path) -> DocumentEntry:
    """Reads a whole file, which must be a mapping; `setting` is the variable that names it. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        words = error.strerror or "cannot be read"
        raise SettingsError(f"{setting}: {path}: {words.lower()}") from None
    if len(raw) > MOST_BYTES:
        raise SettingsError(f"{setting}: {path} has more than {MOST_BYTES // 1024} KB")
    return DocumentEntry(setting, _parsed(setting, path, raw))


def _parsed(setting: str, path: Path, raw: bytes) -> Any:
    import yaml

    try:
        text = raw.decode()
        depth = 0
        for event in yaml.parse(text, Loader=_loader()):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise SettingsError(f"{setting}: {path} is nested more than {_DEEPEST} levels deep")
            if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
                raise SettingsError(f"{setting}: {path}: anchors, aliases and tags are not supported")
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise SettingsError(f"{setting}: {path}{where} is not valid YAML, or contains a key twice") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{setting}: {path} is not YAML in UTF-8") from None


@cache
def _loader() -> Any:
    """Returns a safe loader that reads every scalar as text, except `true`, `false`, null and whole numbers."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as the library has it

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [self.construct_object(name, deep=True) for name, _ in node.value]
            if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
                raise yaml.constructor.ConstructorError(problem_mark=node.start_mark)
            return dict(super().construct_mapping(node, deep=deep))

    for tag, pattern, first in (
        ("bool", "true|false", "tf"),
        ("null", "null|", ["n", ""]),
        ("int", "-?(0|[1-9][0-9]{0,17})", "-0123456789"),
    ):
        StrictLoader.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})\\Z"), list(first)
        )
    return StrictLoader
