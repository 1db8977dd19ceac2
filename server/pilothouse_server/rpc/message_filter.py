"""Filters of watches: the expressions of lists, compared with the message of an event.

The grammar is that of `store.filter_grammar`. A list compares columns; a watch has only the message, because the row
may be newer than the event. The names, kinds and meanings are those of `store.filtering`: a field of the message is
text, an enum, a number, a time, a truth value or a map of labels, by its type. A value that the message lacks is `""`
as text, and equals nothing else.

An event has a part of the state before the change: name, labels, status and permanent fields. If the expression
depends on more, the server cannot determine whether the object matched before. An object that no longer matches is
then reported as DELETED although its watcher may not have it. The alternative would be to store the set of all objects
that each watcher has, and that set could not continue after a resume.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pilothouse_server.rpc.field_checks import alternatives, descriptor_of, is_map, map_fields
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.store.filter_grammar import (
    Junction,
    Literal,
    Node,
    Not,
    Restriction,
    filter_error,
    parse,
)
from pilothouse_server.store.filtering import read_number, read_time, read_truth, read_uuid
from pilothouse_server.values.image_reference import ImageReference
from pilothouse_server.values.labels import whole_number

_TIME: Final = "google.protobuf.Timestamp"
_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITY: Final = frozenset({"=", "!=", ":"})
_INTEGERS: Final = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})
_FLOATS: Final = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})
_PARTS: Final = ("repository", "name", "tag", "digest")
# These fields never change.
_PERMANENT: Final = frozenset(
    {"name", "namespace", "uid", "create_time", "created_by", "api_version", "kind"}
)
# A value of the state before the change that the event does not have.
_UNKNOWN: Final = object()

# Returns the value of a field; None if it is missing, `_UNKNOWN` if the event does not contain it.
_Read = Callable[[str], Any]
# Returns whether a value matches.
_Test = Callable[[Any], bool]


class MessageFilter:
    """An expression over messages of one type, parsed and checked.

    `permanent` are further fields that never change.

    Raises:
        InvalidArgument: the field `filter` is invalid; the error names the position.
    """

    def __init__(self, text: str, message: type[Message], permanent: frozenset[str] = frozenset()) -> None:
        self._message: Any = message
        self._permanent = _PERMANENT | permanent
        tree = parse(text)
        assert tree is not None, "an empty filter has no tree"
        self._holds = _compiled(tree, _fields(descriptor_of(message)))

    def matches(self, message: bytes) -> bool:
        """Returns whether a serialized resource matches."""
        return bool(self._holds(_reader(_parsed(self._message, message))))

    def matched_before(self, event: FeedEvent) -> bool | None:
        """Returns whether the resource matched before a change; None if the event does not show that."""
        now = _reader(_parsed(self._message, event.message))

        def before(name: str) -> Any:
            if name in self._permanent:
                return now(name)
            if name == "labels":
                return _UNKNOWN if event.labels_before is None else event.labels_before
            if name == "status" and event.status_before is not None:
                return event.status_before.upper()
            return _UNKNOWN

        return self._holds(before)


# Watchers of a server are sent the same events at about the same time.
@lru_cache(maxsize=64)
def _parsed(message: Any, contents: bytes) -> Any:
    return message.FromString(contents)


@lru_cache(maxsize=64)
def _fields(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Returns the fields that can be compared, by name.

    For a message of alternatives, they are the fields of all alternatives.
    """
    several = alternatives(message).values() or (message,)
    return {each.name: each for one in several for each in one.fields if _compares(each)}


def _reader(message: Any) -> _Read:
    if alternatives(message.DESCRIPTOR):
        message = getattr(message, message.WhichOneof(message.DESCRIPTOR.oneofs[0].name))
    fields: Mapping[str, FieldDescriptor] = message.DESCRIPTOR.fields_by_name

    def value(name: str) -> Any:
        field = fields.get(name)
        if field is None:
            return None
        found = getattr(message, name)
        if is_map(field):
            return found
        if field.message_type is not None:
            return found.ToDatetime(UTC) if message.HasField(name) else None
        if field.has_presence and not message.HasField(name):
            return None
        if field.enum_type is not None:
            return _words(field).get(found)
        return found

    return value


@lru_cache(maxsize=256)
def _words(field: Any) -> Mapping[int, str]:
    """Returns the words of an enum without its prefix, by number, in upper case; the zero value is left out."""
    prefix = _prefix(field)
    return {each.number: each.name.removeprefix(prefix) for each in field.enum_type.values if each.number}


def _prefix(field: Any) -> str:
    return str(field.enum_type.values_by_number[0].name).removesuffix("UNSPECIFIED")


def _compiled(node: Node, fields: Mapping[str, FieldDescriptor]) -> Callable[[_Read], bool | None]:
    match node:
        case Not(operand):
            inner = _compiled(operand, fields)

            def negated(read: _Read) -> bool | None:
                found = inner(read)
                return None if found is None else not found

            return negated
        case Junction(every, operands):
            parts = [_compiled(each, fields) for each in operands]

            def joined(read: _Read) -> bool | None:
                found = [each(read) for each in parts]
                # One operand that decides is enough, even if others are unknown.
                if (not every) in found:
                    return not every
                return None if None in found else every

            return joined
        case Restriction():
            return _restriction(node, fields)


def _restriction(node: Restriction, fields: Mapping[str, FieldDescriptor]) -> Callable[[_Read], bool | None]:
    field = fields.get(node.field)
    if field is None:
        known = ", ".join(f"{name}.KEY" if is_map(each) else name for name, each in fields.items())
        raise filter_error(node.position, f"unknown field {node.field[:63]!r}; known: {known}")
    test, wanted = _test(node, field), node.operator != "!="

    def holds(read: _Read) -> bool | None:
        value = read(node.field)
        return None if value is _UNKNOWN else test(value) == wanted

    return holds


def _compares(field: FieldDescriptor) -> bool:
    if is_map(field):
        return map_fields(field)[1].type == FieldDescriptor.TYPE_STRING
    if field.is_repeated or field.type == FieldDescriptor.TYPE_BYTES:
        return False
    return field.message_type is None or field.message_type.full_name == _TIME


def _test(node: Restriction, field: FieldDescriptor) -> _Test:
    if is_map(field):
        return _label(node)
    if node.key is not None:
        return _part(node, field)
    if node.value.is_any and node.operator in _EQUALITY:
        return lambda value: value not in (None, "")
    if field.name == "uid":
        return _same(node, str(read_uuid(node.value)))
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(node)
    if node.value.starts_open or node.value.ends_open:
        raise filter_error(node.value.position, f"* only works in text, and {node.field} is not text")
    if field.enum_type is not None:
        return _same(node, _enum(node, field))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _same(node, read_truth(node.value))
    return _ordered(node, _value(node.value, field))


def _value(value: Literal, field: FieldDescriptor) -> Decimal | datetime | int:
    if field.message_type is not None:
        return read_time(value)
    if field.cpp_type in _FLOATS:
        return read_number(value)
    number = whole_number(value.text)
    if number is None:
        raise filter_error(value.position, "expected a whole number of 64 bits")
    return number


def _same(node: Restriction, wanted: object) -> _Test:
    if node.operator in _ORDERS:
        raise filter_error(node.position, f"{node.field} takes = != and : only")
    return lambda value: bool(value == wanted)


def _ordered(node: Restriction, wanted: Any) -> _Test:
    compare: Callable[[Any, Any], bool] = _ORDERS.get(node.operator, _equal)
    return lambda value: value is not None and compare(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    return bool(value == wanted)


def _enum(node: Restriction, field: FieldDescriptor) -> str:
    name, words = node.value.text.upper().removeprefix(_prefix(field)), _words(field).values()
    if name not in words:
        raise filter_error(node.value.position, f"{node.field} must be one of {', '.join(words)}")
    return name


def _part(node: Restriction, field: FieldDescriptor) -> _Test:
    """Returns the test of a part of an image reference, such as `image.tag`."""
    if field.name != "image":
        raise filter_error(node.position, f"{node.field} has no parts")
    if node.key not in _PARTS:
        raise filter_error(
            node.position, f"{node.field} has no part {str(node.key)[:63]!r}; it has {', '.join(_PARTS)}"
        )
    test, part = _text(node), node.key
    return lambda value: test(getattr(ImageReference.parse(value).normalised(), part) if value else "")


def _text(node: Restriction) -> _Test:
    value, wanted = node.value, node.value.text
    if value.is_any and node.operator in _EQUALITY:
        return bool
    if node.operator == ":":
        return lambda text: wanted.lower() in (text or "").lower()
    if node.operator in _ORDERS:
        if value.starts_open or value.ends_open:
            raise filter_error(value.position, "* cannot be used with < <= > >=")
        compare = _ORDERS[node.operator]
        return lambda text: compare(text or "", wanted)
    return _equal_text(value)


def _equal_text(value: Literal) -> _Test:
    wanted = value.text
    if value.starts_open and value.ends_open:
        return lambda text: wanted in (text or "")
    if value.starts_open:
        return lambda text: (text or "").endswith(wanted)
    if value.ends_open:
        return lambda text: (text or "").startswith(wanted)
    return lambda text: (text or "") == wanted


def _label(node: Restriction) -> _Test:
    value, key = node.value, node.key
    if key is None:
        if node.operator != ":":
            raise filter_error(node.position, f"name a label: {node.field}.KEY = value, or {node.field}:KEY")
        if value.is_any:
            return bool
        if value.starts_open or value.ends_open:
            raise filter_error(value.position, "* cannot replace a part of a key")
        return lambda labels: value.text in labels
    if node.operator not in _EQUALITY:
        raise filter_error(node.position, "labels take = != and : only")
    if value.is_any:
        return lambda labels: key in labels
    equal = _equal_text(value)
    return lambda labels: key in labels and equal(labels[key])
