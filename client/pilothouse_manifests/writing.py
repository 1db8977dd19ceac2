"""Converts values to the Kubernetes object: reads the table from left to right.

Manifests are built in the reconciler's loop, so each part of the table is compiled once to a function that only reads
each attribute and writes the stated values, like code written by hand. Unstated values are not sent, so that the field
stays with the API's default and with other field managers.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from pilothouse_manifests.fields import (
    Chosen,
    Constant,
    Encoded,
    Entry,
    Field,
    FieldPart,
    Group,
    Names,
    Nested,
    NumberOrPercent,
    Numbers,
    OneOf,
    PortField,
    Repeated,
    Rest,
    Texts,
    Variable,
    Words,
)

Manifest = dict[str, Any]
Write = Callable[[Any], Manifest]
# Returns the attribute that has a value of this name, or, with dots, an attribute of an attribute.
Place = Callable[[str], str]
# Returns the name of the chosen part of a `OneOf`, and the value that has it.
Choose = Callable[[OneOf, Any], tuple[str, Any]]


def chosen_attribute(entry: OneOf, value: Any) -> tuple[str, Any]:
    """Returns the choice of a value that has an attribute for each part."""
    name = next(name for name, _, _ in entry.choices if getattr(value, name) is not None)
    return name, getattr(value, name)


def writer(
    part: FieldPart, *, place: Place = str, inner_place: Place = str, choose: Choose = chosen_attribute
) -> Write:
    """Returns a function that writes this part of a value; its attributes have the platform's names.

    `inner_place`: `place` for the values within the part."""
    return _Compiler(place, inner_place, choose).function(part.entries)


def _encoded(values: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in values.items()}


class _Compiler:
    """Generates the source of one function.

    `_known` has the objects that it names: functions, tables of choices."""

    def __init__(self, place: Place, inner_place: Place, choose: Choose) -> None:
        self._place = place
        self._inner_place = inner_place
        self._choose = choose
        self._known: dict[str, Any] = {"choose": choose}
        self._lines: list[str] = []

    def function(self, entries: tuple[Entry, ...]) -> Write:
        """Returns a function that writes these entries of `value`."""
        self._lines = ["def write(value):", "    written = {}"]
        for entry in entries:
            self._add(entry, "written")
        self._lines.append("    return written")
        # The source contains only names and keys of the table, which is a part of this package.
        exec("\n".join(self._lines), self._known)  # noqa: S102
        write: Write = self._known["write"]
        return write

    def _name(self, known: Any) -> str:
        name = f"known_{len(self._known)}"
        self._known[name] = known
        return name

    def _inner(self, part: FieldPart) -> Write:
        return _Compiler(self._inner_place, self._inner_place, self._choose).function(part.entries)

    def _add(self, entry: Entry, into: str) -> None:
        match entry:
            case Field():
                self._field(entry, into)
            case Group():
                inner = f"{into}_{entry.key}"
                self._line(f"{inner} = {{}}")
                for each in entry.entries:
                    self._add(each, inner)
                self._line(f"if {inner}: {into}[{entry.key!r}] = {inner}")
            case PortField():
                self._line(f"item = value.{entry.name_of_port} or value.{entry.name}")
                self._line(f"if item: {into}[{entry.key!r}] = item")
            case OneOf():
                choices = self._choices(entry.choices)
                self._line(f"name, item = choose({self._name(entry)}, value)")
                self._line(f"key, inner = {choices}[name]")
                self._line(f"{into}[key] = inner(item)")
            case Variable():
                choices = self._choices(entry.choices)
                self._line(f"found = {choices}.get(value.{entry.chosen})")
                # An empty value is sent, too: it sets the variable to an empty text.
                self._line(f"if found is None: {into}[{entry.literal!r}] = value.{entry.literal}")
                self._line(f"else: {into}[{entry.key!r}] = {{found[0]: found[1](value)}}")
            case Chosen():
                self._line(f"key, inner = {self._choices(entry.choices)}[value.{entry.chosen}]")
                self._line(f"{into}[key] = inner(value)")
            case Rest():
                self._line(f"{into}.update(value.{entry.name})")
            case Constant():
                self._line(f"{into}[{entry.key!r}] = {entry.value!r}")

    def _choices(self, choices: tuple[tuple[str, str, FieldPart], ...]) -> str:
        return self._name({name: (key, self._inner(part)) for name, key, part in choices})

    def _field(self, field: Field, into: str) -> None:
        at = f"{into}[{field.key!r}]"
        self._line(f"item = value.{self._place(field.name)}")
        match field.kind:
            case Texts() | Numbers():
                self._line(f"if item: {at} = list(item)")
            case Words():
                self._line(f"if item: {at} = dict(item)")
            case Encoded():
                self._line(f"if item: {at} = {self._name(_encoded)}(item)")
            case Names():
                self._line(f"if item: {at} = [{{'name': name}} for name in item]")
            case NumberOrPercent():
                self._line(f"if item: {at} = int(item) if item.isdecimal() else item")
            case Nested(part=part):
                inner = self._name(self._inner(part))
                self._line(f"if item is not None and (item := {inner}(item)): {at} = item")
            case Repeated(part=part):
                inner = self._name(self._inner(part))
                self._line(f"if item: {at} = [{inner}(each) for each in item]")
            case _:
                said = "item is not None" if getattr(field.kind, "optional", False) else "item"
                self._line(f"if {said}: {at} = item")
                if field.written:
                    self._line(f"else: {at} = {field.default!r}")

    def _line(self, text: str) -> None:
        self._lines.append(f"    {text}")
