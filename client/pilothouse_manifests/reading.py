"""Converts a Kubernetes object to values by the platform's names: reads the table from right to left.

The values are plain dicts, lists, texts and numbers; only stated values are included. The API has filled in the
defaults of a live object, so a value that equals its default is left out, and stays with its owner.

`hooks` are a caller's own rules: for each part, a check of its values in addition to the table's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pilothouse_manifests.fields import (
    Check,
    Chosen,
    Constant,
    Encoded,
    Entry,
    Field,
    FieldPart,
    Flag,
    Group,
    Names,
    Nested,
    Number,
    NumberOrPercent,
    Numbers,
    OneOf,
    PortField,
    QuantityField,
    Repeated,
    Rest,
    Text,
    Texts,
    Values,
    Variable,
    Words,
)
from pilothouse_manifests.sources import MappingSource

Hooks = Mapping[FieldPart, Check]

_NO_HOOKS: Hooks = {}


def read(part: FieldPart, source: MappingSource, hooks: Hooks = _NO_HOOKS) -> Values | None:
    """Returns the values of one mapping; None if a check leaves it out.

    The caller exits the source's context, and may read more of the source before.
    """
    values: Values = {}
    _read_entries(part.entries, source, values, hooks)
    _pass_defaults(part.defaults, source)
    for check in (part.check, hooks.get(part)):
        if check is not None:
            checked = check(values, source)
            if checked is None:
                return None
            values = checked
    return values


def read_each(
    part: FieldPart, sources: Iterable[MappingSource], hooks: Hooks = _NO_HOOKS
) -> Iterator[Values]:
    """Yields the values of the items of a list, without those that a check leaves out."""
    for source in sources:
        with source:
            values = read(part, source, hooks)
        if values is not None:
            yield values


def _read_entries(entries: tuple[Entry, ...], source: MappingSource, values: Values, hooks: Hooks) -> None:
    for entry in entries:
        if isinstance(entry, Rest):
            others = (key for key in source.names() if not any(_names(each, key) for each in entries))
            if amounts := {key: source.quantity(key) for key in others if re.fullmatch(entry.keys, key)}:
                values[entry.name] = amounts
        else:
            _ENTRIES[type(entry)](entry, source, values, hooks)


def _read_group(group: Group, source: MappingSource, values: Values, hooks: Hooks) -> None:
    with source.part(group.key) as inner:
        _read_entries(group.entries, inner, values, hooks)
        _pass_defaults(group.defaults, inner)


def _read_port(entry: PortField, source: MappingSource, values: Values, _: Hooks) -> None:
    port = source.number_or_name(entry.key, required=entry.required)
    if port:
        values[entry.name if isinstance(port, int) else entry.name_of_port] = port


def _names(entry: Entry, key: str) -> bool:
    return isinstance(entry, Field) and entry.key == key


def _read_field(field: Field, source: MappingSource, values: Values, hooks: Hooks) -> None:
    value = _KINDS[type(field.kind)](field, source, hooks)
    if field.alias:
        value = _agreed(field, value, source)
    if not value and (value is None or not getattr(field.kind, "optional", False)):
        return
    if source.live and field.default is not None:
        usual = field.default(values) if callable(field.default) else field.default
        if value == usual:
            return
    place = values
    *parents, name = field.name.split(".")
    for parent in parents:
        place = place.setdefault(parent, {})
    place[name] = value


def _agreed(field: Field, value: Any, source: MappingSource) -> Any:
    older = source.text(field.alias)
    if older and value and older != value:
        # The API server uses only the newer key, and sets the older key to its value.
        source.drop(field.alias)
    return value or older


def _pass_defaults(defaults: tuple[tuple[Any, ...], ...], source: MappingSource) -> None:
    for key, *usual in defaults:
        source.only_default(key, *usual)


def _read_one(entry: OneOf, source: MappingSource, values: Values, hooks: Hooks) -> None:
    for name, key, part in _one_given(entry, source):
        with source.part(key) as inner:
            values[name] = read(part, inner, hooks)


def _read_chosen(entry: Chosen, source: MappingSource, values: Values, hooks: Hooks) -> None:
    for name, key, part in _one_given(entry, source):
        with source.part(key) as inner:
            values |= {entry.chosen: name, **(read(part, inner, hooks) or {})}


def _one_given(entry: OneOf | Chosen, source: MappingSource) -> list[tuple[str, str, FieldPart]]:
    """Returns the choices that the source states; reports a problem unless it is exactly one."""
    given = [choice for choice in entry.choices if source.has(choice[1])]
    if len(given) != 1:
        known = ", ".join(key for _, key, _ in entry.choices)
        found = " and ".join(key for _, key, _ in given) or "none"
        source.invalid(None, f"expected one of {known}, found {found}")
    return given


def _read_variable(entry: Variable, source: MappingSource, values: Values, hooks: Hooks) -> None:
    literal = source.text(entry.literal)
    if not source.has(entry.key):
        values |= {entry.literal: literal, entry.chosen: "literal"}
        return
    with source.part(entry.key) as inner:
        if literal:
            inner.invalid(None, f"expected either {entry.literal} or {entry.key}, found both")
        given = [choice for choice in entry.choices if inner.has(choice[1])]
        if len(given) > 1:
            inner.invalid(None, f"expected one source, found {' and '.join(key for _, key, _ in given)}")
        if not inner.names():
            inner.invalid(None, "expected a source, found none")
        for name, key, part in given:
            with inner.part(key) as reference:
                values |= {entry.chosen: name, **(read(part, reference, hooks) or {})}


def _read_nested(field: Field, source: MappingSource, hooks: Hooks) -> Values | None:
    kind = field.kind
    assert isinstance(kind, Nested)
    with source.part(field.key) as inner:
        return read(kind.part, inner, hooks) if inner.names() else None


def _read_repeated(field: Field, source: MappingSource, hooks: Hooks) -> list[Values]:
    kind = field.kind
    assert isinstance(kind, Repeated)
    found: list[Values] = []
    names: set[Any] = set()
    for item in source.each(field.key, kind.by):
        with item:
            values = read(kind.part, item, hooks)
        if values is None:
            continue
        if kind.called:
            name = values.get(kind.by, "")
            if name in names:
                item.invalid(None, f"expected each {kind.called} once, found {name!r} again")
            names.add(name)
        found.append(values)
    return found


def _read_encoded(field: Field, source: MappingSource, _: Hooks) -> dict[str, bytes]:
    kind = field.kind
    assert isinstance(kind, Encoded)
    return source.encoded(field.key, hidden=kind.hidden)


def _read_names(field: Field, source: MappingSource, _: Hooks) -> list[str]:
    kind = field.kind
    assert isinstance(kind, Names)
    names: list[str] = []
    for item in source.each(field.key):
        with item:
            name = item.text("name", required=True)
        if name in names:
            item.invalid(None, f"expected each {kind.called} once, found {name!r} again")
        names.append(name)
    return names


def _read_number(field: Field, source: MappingSource, _: Hooks) -> int | None:
    kind = field.kind
    assert isinstance(kind, Number)
    return source.integer(field.key, minimum=kind.minimum, maximum=kind.maximum, required=field.required)


def _read_text(field: Field, source: MappingSource, _: Hooks) -> str:
    kind = field.kind
    assert isinstance(kind, Text)
    return source.text(field.key, required=field.required, choices=kind.choices)


def _read_numbers(field: Field, source: MappingSource, _: Hooks) -> list[int]:
    kind = field.kind
    assert isinstance(kind, Numbers)
    return source.integers(field.key, maximum=kind.maximum)


_KINDS: dict[type, Callable[[Field, MappingSource, Hooks], Any]] = {
    Text: _read_text,
    QuantityField: lambda field, source, _: source.quantity(field.key),
    Number: _read_number,
    NumberOrPercent: lambda field, source, _: source.number_or_percent(field.key),
    Flag: lambda field, source, _: source.boolean(field.key),
    Texts: lambda field, source, _: source.texts(field.key),
    Numbers: _read_numbers,
    Words: lambda field, source, _: source.words(field.key),
    Encoded: _read_encoded,
    Names: _read_names,
    Nested: _read_nested,
    Repeated: _read_repeated,
}
_ENTRIES: dict[type, Callable[[Any, MappingSource, Values, Hooks], None]] = {
    Field: _read_field,
    Group: _read_group,
    PortField: _read_port,
    OneOf: _read_one,
    Variable: _read_variable,
    Chosen: _read_chosen,
    Constant: lambda entry, source, _values, _hooks: source.only_default(entry.key, entry.value),
}
