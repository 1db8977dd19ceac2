"""Reads one mapping of a manifest and notices every key that nobody asked for.

`Fields` hands out values by name and type. Leaving its `with` block reports each key that was not read and
says anything as one that cannot be represented: that is how nothing of the input is dropped silently, without
any list of Kubernetes' fields to fall out of date. Null counts as absent, as it does in Kubernetes; so does a
mapping or list that holds nothing (`status: {}`, `creationTimestamp: null`).

A mapping that is absent reads as one without keys, so that callers need not branch. Wrong types are reported
at their line, and read as absent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from pilothouse_client.apply.nodes import (
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    describe,
    integer_value,
    says_nothing,
)
from pilothouse_client.apply.problems import Place, Reporter

INT32_MAXIMUM = 2**31 - 1


class Item:
    """One value with its path: an item of a list, or the value of a key."""

    def __init__(self, node: Node, path: str, reporter: Reporter) -> None:
        self.node = node
        self.path = path
        self.place = node.place
        self._reporter = reporter

    def text(self, *, hidden: bool = False) -> str | None:
        """The text; None, and a problem, if it is none. What is `hidden` is in no message."""
        if isinstance(self.node, Scalar) and self.node.kind == "string":
            return self.node.text
        advice = "; put it in quotes" if isinstance(self.node, Scalar) and self.node.kind != "null" else ""
        found = "something else" if hidden else describe(self.node)
        self._reporter.invalid(self.place, self.path, f"expected a text, found {found}{advice}")
        return None

    def integer(self, minimum: int, maximum: int) -> int | None:
        """The number; None, and a problem, if it is none or out of bounds."""
        if not (isinstance(self.node, Scalar) and self.node.kind == "integer"):
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
        """True or false; None, and a problem, if it is neither."""
        if isinstance(self.node, Scalar) and self.node.kind == "boolean":
            return self.node.text.lower() in ("true", "yes", "on")
        self._reporter.invalid(self.place, self.path, f"expected true or false, found {describe(self.node)}")
        return None

    def fields(self) -> Fields:
        """The mapping; one without keys, and a problem, if it is none."""
        if isinstance(self.node, Mapping):
            return Fields(self.node, self.path, self._reporter)
        self._reporter.invalid(self.place, self.path, f"expected a mapping, found {describe(self.node)}")
        return Fields(Mapping(self.place, {}), self.path, self._reporter, present=False)

    def invalid(self, message: str) -> None:
        """Report that this is wrong in itself."""
        self._reporter.invalid(self.place, self.path, message)

    def unsupported(self, message: str = "cannot be represented") -> None:
        """Report that the platform has no place for this."""
        self._reporter.unsupported(self.place, self.path, message)


class Fields:
    """The keys of one mapping, to be used as a context manager."""

    def __init__(self, node: Mapping, path: str, reporter: Reporter, present: bool = True) -> None:
        self.path = path
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
            near = difflib.get_close_matches(name, self._read - self._entries.keys(), n=1, cutoff=0.8)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            self.reporter.unsupported(entry.place, self.path_of(name), "cannot be represented" + advice)

    def path_of(self, name: str) -> str:
        """The path of a key."""
        return f"{self.path}.{name}" if self.path else name

    def place_of(self, name: str) -> Place:
        """Where a key stands; where the mapping does, if it is absent."""
        entry = self._entries.get(name)
        return entry.place if entry is not None else self.place

    def has(self, name: str) -> bool:
        """Whether a key is there and not null. Does not count as reading it."""
        return self._present(name) is not None

    def names(self) -> list[str]:
        """The keys that are there and not null. Does not count as reading them."""
        return [name for name in self._entries if self._present(name) is not None]

    def item(self, name: str) -> Item | None:
        """The value of a key, whatever it is."""
        entry = self._take(name)
        return None if entry is None else Item(entry.value, self.path_of(name), self.reporter)

    def text(self, name: str, *, required: bool = False) -> str:
        """The text of a key; empty if it is absent."""
        item = self._asked(name, required)
        return (item.text() or "") if item is not None else ""

    def choice(self, name: str, *allowed: str) -> str:
        """The text of a key that must be one of a few; empty if it is absent."""
        value = self.text(name)
        if value and value not in allowed:
            expected = ", ".join(allowed)
            self.reporter.invalid(
                self.place_of(name), self.path_of(name), f"expected one of {expected}, found {value!r}"
            )
            return ""
        return value

    def integer(
        self, name: str, *, minimum: int = 0, maximum: int = INT32_MAXIMUM, required: bool = False
    ) -> int | None:
        """The number of a key; None if it is absent."""
        item = self._asked(name, required)
        return item.integer(minimum, maximum) if item is not None else None

    def boolean(self, name: str) -> bool | None:
        """The truth value of a key; None if it is absent."""
        item = self.item(name)
        return item.boolean() if item is not None else None

    def number_or_name(self, name: str, *, required: bool = False) -> int | str | None:
        """A port by number (1 to 65535) or by name; None if it is absent."""
        item = self._asked(name, required)
        if item is None:
            return None
        if isinstance(item.node, Scalar) and item.node.kind == "string":
            text = item.node.text
            if any(character.isalpha() for character in text):
                return text
            self.reporter.invalid(
                item.place, item.path, f"expected a port's number or name, found the text {text!r}"
            )
            return None
        return item.integer(1, 65535)

    def scalar_text(self, name: str) -> str:
        """The text as written of a key that may be a text or a number, such as a quantity; empty if it is absent."""
        item = self.item(name)
        if item is None:
            return ""
        if isinstance(item.node, Scalar) and item.node.kind in ("string", "integer", "float"):
            return item.node.text
        self.reporter.invalid(
            item.place, item.path, f"expected a text or number, found {describe(item.node)}"
        )
        return ""

    def fields(self, name: str, *, required: bool = False) -> Fields:
        """The mapping of a key; one without keys, and `present` false, if it is absent."""
        item = self._asked(name, required)
        if item is None:
            return Fields(Mapping(self.place_of(name), {}), self.path_of(name), self.reporter, present=False)
        return item.fields()

    def items(self, name: str) -> Iterator[Item]:
        """The items of a list; none if it is absent."""
        item = self.item(name)
        if item is None:
            return
        if not isinstance(item.node, Sequence):
            self.reporter.invalid(item.place, item.path, f"expected a list, found {describe(item.node)}")
            return
        for index, node in enumerate(item.node.items):
            yield Item(node, f"{item.path}[{index}]", self.reporter)

    def texts(self, name: str) -> list[str]:
        """The texts of a list."""
        return [text for item in self.items(name) if (text := item.text()) is not None]

    def text_map(self, name: str, *, hidden: bool = False) -> dict[str, TextEntry]:
        """The texts of a mapping by key. What is `hidden` is in no message."""
        with self.fields(name) as fields:
            values: dict[str, TextEntry] = {}
            # A null here is no absent field but a key without its text.
            for key, entry in fields._entries.items():
                fields._read.add(key)
                path = f"{fields.path}[{key}]"
                text = Item(entry.value, path, self.reporter).text(hidden=hidden)
                if text is not None:
                    values[key] = TextEntry(text, entry.place, path)
            return values

    def only_default(self, name: str, *defaults: str, message: str = "cannot be represented") -> None:
        """Read a key that the platform leaves at Kubernetes' default: any other value is reported."""
        item = self.item(name)
        if item is None:
            return
        if isinstance(item.node, Scalar):
            text = item.node.text
            if item.node.kind == "boolean":
                text = "true" if item.boolean() else "false"
            if text in defaults:
                return
        elif says_nothing(item.node):
            return
        self.reporter.unsupported(self.place_of(name), item.path, message)

    def _asked(self, name: str, required: bool) -> Item | None:
        item = self.item(name)
        if item is None and required and self.present:
            self.reporter.invalid(self.place_of(name), self.path_of(name), "expected a value, found none")
        return item

    def _take(self, name: str) -> Entry | None:
        self._read.add(name)
        return self._present(name)

    def _present(self, name: str) -> Entry | None:
        entry = self._entries.get(name)
        if entry is None or (isinstance(entry.value, Scalar) and entry.value.kind == "null"):
            return None
        return entry


class TextEntry:
    """A text of a mapping, with where it stands."""

    __slots__ = ("path", "place", "text")

    def __init__(self, text: str, place: Place, path: str) -> None:
        self.text = text
        self.place = place
        self.path = path


def texts_of(entries: dict[str, TextEntry]) -> dict[str, str]:
    """The texts without their places."""
    return {name: entry.text for name, entry in entries.items()}
