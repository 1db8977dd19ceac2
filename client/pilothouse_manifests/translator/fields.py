"""Reads one mapping of a manifest and reports unread keys.

`Fields` is a mapping of a written manifest, as a `MappingSource` for the translator of `pilothouse_manifests`. Leaving
its `with` block reports each unread key that has a value as one that cannot be represented. So nothing of the input is
dropped silently, without a list of Kubernetes' fields that could become outdated. Null counts as absent, as it does in
Kubernetes, and so does an empty mapping or list (`status: {}`, `creationTimestamp: null`).

An absent mapping reads as one without keys, so that callers need not branch. A value of a wrong type is reported with
its line, and reads as absent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from pilothouse_manifests.sources import INT32_MAXIMUM, INT64_MAXIMUM, NOT_REPRESENTED
from pilothouse_manifests.translator.nodes import (
    InputPosition,
    Mapping,
    MappingEntry,
    Node,
    ScalarNode,
    SequenceNode,
    describe,
    integer_value,
    says_nothing,
)
from pilothouse_manifests.translator.problems import Reporter

_QUANTITY = re.compile(r"\+?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")


class FieldItem:
    """One value with its path: an item of a list, or the value of a key."""

    def __init__(self, node: Node, path: str, reporter: Reporter) -> None:
        self.node = node
        self.path = path
        self.place = node.place
        self._reporter = reporter

    def text(self, *, hidden: bool = False) -> str | None:
        """Returns the text; if it is none, None, and reports that.

        If `hidden`, the message omits the value."""
        if isinstance(self.node, ScalarNode) and self.node.kind == "string":
            return self.node.text
        advice = (
            "; put it in quotes" if isinstance(self.node, ScalarNode) and self.node.kind != "null" else ""
        )
        found = "something else" if hidden else describe(self.node)
        self._reporter.invalid(self.place, self.path, f"expected a text, found {found}{advice}")
        return None

    def integer(self, minimum: int, maximum: int) -> int | None:
        """Returns the number; if it is none or out of bounds, None, and reports that."""
        if not (isinstance(self.node, ScalarNode) and self.node.kind == "integer"):
            self._reporter.invalid(
                self.place, self.path, f"expected a whole number, found {describe(self.node)}"
            )
            return None
        value = integer_value(self.node.text)
        if minimum <= value <= maximum:
            return value
        self._reporter.invalid(self.place, self.path, f"expected {minimum} to {maximum}, found {value}")
        return None

    def boolean(self) -> bool | None:
        """Returns the boolean; if it is none, None, and reports that."""
        if isinstance(self.node, ScalarNode) and self.node.kind == "boolean":
            return self.node.text.lower() in ("true", "yes", "on")
        self._reporter.invalid(self.place, self.path, f"expected true or false, found {describe(self.node)}")
        return None

    def fields(self) -> Fields:
        """Returns the mapping; if it is none, one without keys, and reports that."""
        if isinstance(self.node, Mapping):
            return Fields(self.node, self.path, self._reporter)
        self._reporter.invalid(self.place, self.path, f"expected a mapping, found {describe(self.node)}")
        return Fields(Mapping(self.place, {}), self.path, self._reporter, present=False)


class Fields:
    """The keys of one mapping, a `sources.MappingSource`; use it as a context manager."""

    # A written manifest states its values, even if they equal a default of Kubernetes.
    live = False

    def __init__(self, node: Mapping, path: str, reporter: Reporter, present: bool = True) -> None:
        self.path = path
        self.node = node
        self.place = node.place
        self.present = present
        self.reporter = reporter
        self._entries = node.entries
        self._read: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        for name, entry in self._entries.items():
            if name in self._read or says_nothing(entry.value):
                continue
            meant = self.reporter.meant(self.path_of(name))
            if meant is None:
                self.unsupported(name)
            else:
                self.invalid(name, f"is no field of Kubernetes; did you mean {meant!r}?")

    def path_of(self, name: str) -> str:
        """Returns the path of a key."""
        return f"{self.path}.{name}" if self.path else name

    def place_of(self, name: str) -> InputPosition:
        """Returns the position of a key, or of the mapping if the key is absent.

        `name` may be a path with dots."""
        entry = self._entries.get(name)
        if entry is not None:
            return entry.place
        first, _, rest = name.partition(".")
        inner = self._entries.get(first)
        if rest and inner is not None and isinstance(inner.value, Mapping):
            return Fields(inner.value, self.path_of(first), self.reporter).place_of(rest)
        return self.place

    def has(self, key: str) -> bool:
        """Returns whether a key exists and is not null. Does not count as reading it."""
        return self._present(key) is not None

    def names(self) -> list[str]:
        """Returns the keys that exist and are not null. Does not count as reading them."""
        return [name for name in self._entries if self._present(name) is not None]

    def item(self, name: str) -> FieldItem | None:
        """Returns the value of a key, of any type."""
        # `_take` and `path_of` are inlined for speed: a workload has eighty keys to read.
        self._read.add(name)
        entry = self._entries.get(name)
        if entry is None or (isinstance(entry.value, ScalarNode) and entry.value.kind == "null"):
            return None
        return FieldItem(entry.value, f"{self.path}.{name}" if self.path else name, self.reporter)

    def drop(self, name: str) -> None:
        """Reads a key that a server sets: the key is left out, and the document's note names it."""
        entry = self._take(name)
        if entry is not None and not says_nothing(entry.value):
            self.reporter.dropped.append(self.path_of(name))

    def text(self, key: str, *, required: bool = False, choices: tuple[str, ...] = ()) -> str:
        """Returns the text of a key, one of the choices if there are any.

        Empty if the key is absent."""
        item = self._asked(key, required)
        value = (item.text() or "") if item is not None else ""
        if value and choices and value not in choices:
            self.invalid(key, f"expected one of {', '.join(choices)}, found {value!r}")
            return ""
        return value

    def integer(
        self, key: str, *, minimum: int = 0, maximum: int = INT32_MAXIMUM, required: bool = False
    ) -> int | None:
        """Returns the number of a key; None if the key is absent."""
        item = self._asked(key, required)
        return item.integer(minimum, maximum) if item is not None else None

    def boolean(self, key: str) -> bool | None:
        """Returns the boolean of a key; None if the key is absent."""
        item = self.item(key)
        return item.boolean() if item is not None else None

    def number_or_name(self, key: str, *, required: bool = False) -> int | str | None:
        """Returns a port by number (1 to 65535) or name.

        None if it is absent, or 0 or empty, as in Kubernetes."""
        item = self._asked(key, required)
        if item is None:
            return None
        if not required and isinstance(item.node, ScalarNode) and item.node.text in ("", "0"):
            return None
        if isinstance(item.node, ScalarNode) and item.node.kind == "string":
            text = item.node.text
            if any(character.isalpha() for character in text):
                return text
            self.reporter.invalid(
                item.place, item.path, f"expected a port's number or name, found the text {text!r}"
            )
            return None
        return item.integer(1, 65535)

    def number_or_percent(self, key: str) -> str:
        """Returns a whole number, or a percentage such as `25%`, as text.

        Empty if the key is absent."""
        item = self.item(key)
        if item is None:
            return ""
        text = item.node.text if isinstance(item.node, ScalarNode) else ""
        kind = item.node.kind if isinstance(item.node, ScalarNode) else ""
        if (kind == "integer" and text.isdigit()) or (kind == "string" and re.fullmatch("[0-9]+%", text)):
            return text
        expected = "expected a whole number or a percentage such as 25%"
        self.reporter.invalid(item.place, item.path, f"{expected}, found {describe(item.node)}")
        return ""

    def quantity(self, key: str) -> str:
        """Returns a Kubernetes quantity as written, a text or a number.

        Empty if the key is absent."""
        item = self.item(key)
        if item is None:
            return ""
        if not (isinstance(item.node, ScalarNode) and item.node.kind in ("string", "integer", "float")):
            self.reporter.invalid(
                item.place, item.path, f"expected a text or number, found {describe(item.node)}"
            )
            return ""
        text = item.node.text
        if text and not _QUANTITY.fullmatch(text):
            self.invalid(key, f"expected a quantity such as 100m, 0.5, 64Mi, found {text!r}")
            return ""
        return text

    def part(self, key: str, *, required: bool = False) -> Fields:
        """Returns the mapping of a key; one without keys, and `present` false, if the key is absent."""
        item = self._asked(key, required)
        if item is None:
            return Fields(Mapping(self.place_of(key), {}), self.path_of(key), self.reporter, present=False)
        return item.fields()

    def items(self, key: str) -> Iterator[FieldItem]:
        """Yields the items of a list; none if the key is absent."""
        item = self.item(key)
        if item is None:
            return
        if not isinstance(item.node, SequenceNode):
            self.reporter.invalid(item.place, item.path, f"expected a list, found {describe(item.node)}")
            return
        for index, node in enumerate(item.node.items):
            yield FieldItem(node, f"{item.path}[{index}]", self.reporter)

    def each(self, key: str, by: str = "name") -> Iterator[Fields]:
        """Yields the mappings of a list; messages identify them by position, which people can count."""
        for item in self.items(key):
            yield item.fields()

    def texts(self, key: str) -> list[str]:
        """Returns the texts of a list."""
        return [text for item in self.items(key) if (text := item.text()) is not None]

    def integers(self, key: str, *, maximum: int = INT64_MAXIMUM) -> list[int]:
        """Returns the numbers of a list."""
        return [number for item in self.items(key) if (number := item.integer(0, maximum)) is not None]

    def text_map(self, key: str, *, hidden: bool = False) -> dict[str, TextEntry]:
        """Returns the texts of a mapping by key.

        If `hidden`, no message contains the values."""
        with self.part(key) as fields:
            values: dict[str, TextEntry] = {}
            # A null here is not an absent field but a key without its text.
            for name, entry in fields._entries.items():
                fields._read.add(name)
                path = f"{fields.path}[{name}]"
                text = FieldItem(entry.value, path, self.reporter).text(hidden=hidden)
                if text is not None:
                    values[name] = TextEntry(text, entry.place, path)
            return values

    def words(self, key: str) -> dict[str, str]:
        """Returns the texts of a mapping by key, without their positions."""
        return texts_of(self.text_map(key))

    def encoded(self, key: str, *, hidden: bool = False) -> dict[str, bytes]:
        """Returns the bytes of a mapping of base64.

        If `hidden`, no message contains the values."""
        values = {}
        for name, entry in self.text_map(key, hidden=hidden).items():
            try:
                # Kubernetes ignores line breaks in base64, and nothing else.
                text = entry.text.replace("\n", "").replace("\r", "")
                values[name] = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                self.reporter.invalid(entry.place, entry.path, "expected base64, found something else")
        return values

    def only_default(self, key: str, *defaults: Any) -> None:
        """Reads a key that the platform leaves at Kubernetes' default: any other value is reported."""
        item = self.item(key)
        if item is None:
            return
        if isinstance(item.node, ScalarNode):
            if _says(item.node, defaults):
                return
            if item.node.kind == "boolean":
                item.boolean()
        elif says_nothing(item.node):
            return
        self.unsupported(key)

    def invalid(self, key: str | None, message: str) -> None:
        """Reports that a key, or the mapping itself, is invalid."""
        self.reporter.invalid(*self.at(key), message)

    def unsupported(self, key: str | None, message: str = NOT_REPRESENTED) -> None:
        """Reports that the platform has no place for a key, or for the mapping itself.

        A field of a workload that the API does not name is carried instead, as unchanged JSON.
        """
        if key is None or message != NOT_REPRESENTED or not self.carries(key):
            self.reporter.unsupported(*self.at(key), message)

    def carries(self, key: str) -> bool:
        """Carries a field of a workload that the API does not name, and reports its faults; False if it cannot."""
        entry, path = self._entries.get(key), self.path_of(key)
        if entry is None or not self.reporter.carry(path, entry.value, entry.place):
            return False
        self._read.add(key)
        for wrong, rule in self.reporter.faults(path, entry.value):
            self.reporter.invalid(entry.place, wrong, rule)
        return True

    def unusable(self, key: str | None, message: str) -> None:
        """Reports that the whole document has no place on the platform."""
        self.reporter.unusable(*self.at(key), message)

    def at(self, key: str | None) -> tuple[InputPosition, str]:
        """Returns position and path of a key, or of the mapping itself, for a problem that the caller reports."""
        if key is None:
            return self.place, self.path
        # A reported key is not reported again as unread.
        self._read.add(key)
        return self.place_of(key), self.path_of(key)

    def _asked(self, name: str, required: bool) -> FieldItem | None:
        item = self.item(name)
        if item is None and required and self.present:
            self.invalid(name, "expected a value, found none")
        return item

    def _take(self, name: str) -> MappingEntry | None:
        self._read.add(name)
        return self._present(name)

    def _present(self, name: str) -> MappingEntry | None:
        entry = self._entries.get(name)
        if entry is None or (isinstance(entry.value, ScalarNode) and entry.value.kind == "null"):
            return None
        return entry


def _says(scalar: ScalarNode, values: tuple[Any, ...]) -> bool:
    """Returns whether a scalar has one of these values, in any spelling."""
    if scalar.kind == "boolean":
        return (scalar.text.lower() in ("true", "yes", "on")) in [v for v in values if isinstance(v, bool)]
    numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if scalar.kind == "integer" and integer_value(scalar.text) in numbers:
        return True
    return scalar.text in [str(value) for value in values]


class TextEntry:
    """A text of a mapping, with its position and path."""

    __slots__ = ("path", "place", "text")

    def __init__(self, text: str, place: InputPosition, path: str) -> None:
        self.text = text
        self.place = place
        self.path = path


def texts_of(entries: dict[str, TextEntry]) -> dict[str, str]:
    """Returns the texts without their positions."""
    return {name: entry.text for name, entry in entries.items()}
