"""The checks of single values, built once per field from its `FieldRule`.

A check is a function (value, path, violations) that appends the broken rules under the path. Only the container of a
field makes the field's path, so that a valid value costs no string building beyond the nesting.

A violation of a field that is declared secret never shows more than which rule was broken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.errors import Violation
from pilothouse_server.rpc.formats import MAP_FORMATS, TEXT_FORMATS, TextCheck, format_word
from pilothouse_server.store.paging import LARGEST_PAGE_SIZE
from pilothouse_server.values.names import annotations_size_problem, unstorable_problem

Check = Callable[[Any, str, list[Violation]], None]

DEFAULT_CHARACTERS = 1024
DEFAULT_BYTES = 1 << 20
DEFAULT_ITEMS = 256
MOST_VIOLATIONS = 20
LONGEST_KEY_SHOWN = 64

# Seconds since 1970 of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, and of 10,000 years.
_TIMESTAMP_SECONDS = (-62_135_596_800, 253_402_300_799)
_DURATION_SECONDS = 315_576_000_000
# The last microsecond of a second, in nanoseconds.
_LAST_MICROSECOND = 999_999_000

_INTEGER_TYPES = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_FLOAT_TYPES = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})


class RuleError(RuntimeError):
    """A FieldRule that cannot apply to its field, such as a format on a number.

    This is a fault in the proto file.
    """


def descriptor_of(message: Message | type[Message]) -> Descriptor:
    """Returns the descriptor of a message or of its class.

    The type hints name two classes for the same object.
    """
    return cast(Descriptor, message.DESCRIPTOR)


def rule_of(field: FieldDescriptor) -> options.FieldRule:
    """Returns the declared rule of a field; an empty rule if there is none."""
    rule: options.FieldRule = field.GetOptions().Extensions[options.field]
    return rule


def is_secret(field: FieldDescriptor) -> bool:
    """Returns whether a field is declared a credential or a secret."""
    return rule_of(field).sensitivity == options.SENSITIVITY_SECRET


def is_unrecorded(field: FieldDescriptor) -> bool:
    """Returns whether audit records leave a field out.

    An anonymous caller types such a field, and it may be a password.
    """
    return rule_of(field).sensitivity == options.SENSITIVITY_UNRECORDED


def is_secret_by_name(field: FieldDescriptor) -> bool:
    """Returns whether records mask a field if the name that belongs to it reads like a credential's."""
    return rule_of(field).sensitivity == options.SENSITIVITY_NAMED


def is_map(field: FieldDescriptor) -> bool:
    """Returns whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def alternatives(descriptor: Descriptor) -> dict[int, Descriptor]:
    """Returns the messages of which a message contains one, by field number; {} if it has another form."""
    held = {each.number: each.message_type for each in descriptor.fields if each.containing_oneof is not None}
    whole = len(descriptor.oneofs) == 1 and len(held) == len(descriptor.fields)
    return {number: each for number, each in held.items() if each is not None} if whole else {}


def map_fields(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """Returns the fields `key` and `value` of a map's entries."""
    assert field.message_type is not None
    entry = field.message_type.fields_by_name
    return entry["key"], entry["value"]


def scalar_check(
    field: FieldDescriptor, rule: options.FieldRule, form: TextCheck | None = None
) -> Check | None:
    """Returns the check of one value (or item) that is not a message; None if no value can be wrong.

    `form` replaces the declared format.
    """
    kind = field.cpp_type
    text_bound = rule.min_length or (rule.format and not is_map(field))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _bytes_check(rule)
        return _text_check(field, rule, form)
    if text_bound:
        raise RuleError(f"{field.full_name}: a length or a format on a field that is not a string")
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_check(field)
    if kind in _INTEGER_TYPES or kind in _FLOAT_TYPES:
        return _number_check(rule, is_float=kind in _FLOAT_TYPES)
    return None


def repeated_check(rule: options.FieldRule, item: Check | None) -> Check:
    """Returns the check of a repeated field: the number of items, then each item."""
    most = rule.max_items or DEFAULT_ITEMS

    def check(values: Any, path: str, violations: list[Violation]) -> None:
        if len(values) > most:
            violations.append(Violation(path, "max_items", f"must not have more than {most} items"))
            return
        if item is not None:
            for index, value in enumerate(values):
                item(value, f"{path}[{index}]", violations)
                if len(violations) >= MOST_VIOLATIONS:
                    return

    return check


def map_check(field: FieldDescriptor, rule: options.FieldRule, value_message: Check | None) -> Check:
    """Returns the check of a map: the number of entries, each key, and each value.

    `value_message` checks values that are messages.
    """
    key_field, value_field = map_fields(field)
    key_form, value_form = _map_forms(field, rule)
    key_rule = options.FieldRule(sensitivity=rule.sensitivity)
    value_rule = options.FieldRule(
        max_length=rule.max_length, min_length=rule.min_length, sensitivity=rule.sensitivity
    )
    if rule.HasField("minimum"):
        value_rule.minimum = rule.minimum
    if rule.HasField("maximum"):
        value_rule.maximum = rule.maximum
    check_key = scalar_check(key_field, key_rule, key_form)
    check_value = value_message or scalar_check(value_field, value_rule, value_form)
    most = rule.max_items or DEFAULT_ITEMS
    secret = rule.sensitivity == options.SENSITIVITY_SECRET
    sized = rule.format == options.FORMAT_ANNOTATIONS

    def check(values: Any, path: str, violations: list[Violation]) -> None:
        if len(values) > most:
            violations.append(Violation(path, "max_items", f"must not have more than {most} entries"))
            return
        for key, value in values.items():
            # A secret may have been entered as a key, so keys of secret maps are not shown.
            at = f"{path}[*]" if secret else f"{path}[{_shown(key)}]"
            if check_key is not None:
                check_key(key, at, violations)
            if check_value is not None:
                check_value(value, at, violations)
            if len(violations) >= MOST_VIOLATIONS:
                return
        if sized and (problem := annotations_size_problem(values)):
            violations.append(Violation(path, "max_length", problem))

    return check


def _map_forms(field: FieldDescriptor, rule: options.FieldRule) -> tuple[TextCheck | None, TextCheck | None]:
    if rule.format in MAP_FORMATS:
        return MAP_FORMATS[rule.format]
    if rule.format and rule.format not in TEXT_FORMATS:
        raise RuleError(f"{field.full_name}: unknown format {rule.format}")
    return (TEXT_FORMATS[rule.format] if rule.format else None), None


def _shown(key: object) -> str:
    return json.dumps(key[:LONGEST_KEY_SHOWN]) if isinstance(key, str) else str(key)


def _text_check(field: FieldDescriptor, rule: options.FieldRule, form: TextCheck | None) -> Check:
    most, least = rule.max_length or DEFAULT_CHARACTERS, rule.min_length
    secret = rule.sensitivity == options.SENSITIVITY_SECRET
    word = "format"
    if form is None and rule.format:
        form = TEXT_FORMATS.get(rule.format)
        if form is None:
            raise RuleError(f"{field.full_name}: format {rule.format} is unknown, or one of maps")
        word = format_word(rule.format)

    def check(text: Any, path: str, violations: list[Violation]) -> None:
        if len(text) > most:
            violations.append(Violation(path, "max_length", f"must not be longer than {most} characters"))
        elif len(text) < least:
            violations.append(Violation(path, "min_length", f"must have at least {least} characters"))
        elif problem := unstorable_problem(text):
            violations.append(Violation(path, "text", problem))
        elif form is not None and (problem := form(text)):
            description = "does not have the required format" if secret else problem
            violations.append(Violation(path, word, description))

    return check


def _bytes_check(rule: options.FieldRule) -> Check:
    most = rule.max_length or DEFAULT_BYTES

    def check(value: Any, path: str, violations: list[Violation]) -> None:
        if len(value) > most:
            violations.append(Violation(path, "max_length", f"must not be longer than {most} bytes"))
        elif len(value) < rule.min_length:
            violations.append(Violation(path, "min_length", f"must have at least {rule.min_length} bytes"))

    return check


def _enum_check(field: FieldDescriptor) -> Check:
    assert field.enum_type is not None
    known = frozenset(field.enum_type.values_by_number)
    listed = ", ".join(value.name for value in field.enum_type.values if value.number)

    def check(value: Any, path: str, violations: list[Violation]) -> None:
        if value not in known:
            violations.append(Violation(path, "enum", f"{value} is unknown; must be one of {listed}"))

    return check


def _number_check(rule: options.FieldRule, *, is_float: bool) -> Check | None:
    least = rule.minimum if rule.HasField("minimum") else None
    most = rule.maximum if rule.HasField("maximum") else None
    if rule.page_size:
        least, most = 0, LARGEST_PAGE_SIZE
    if least is None and most is None and not is_float:
        return None
    between = f"must be between {least} and {most}"

    def check(value: Any, path: str, violations: list[Violation]) -> None:
        if is_float and not math.isfinite(value):
            violations.append(Violation(path, "finite", "must be a finite number"))
        elif least is not None and value < least:
            violations.append(
                Violation(path, "minimum", f"must be at least {least}" if most is None else between)
            )
        elif most is not None and value > most:
            violations.append(
                Violation(path, "maximum", f"must be at most {most}" if least is None else between)
            )

    return check


def timestamp_check(value: Any, path: str, violations: list[Violation]) -> None:
    """Checks that RFC 3339 can write a Timestamp: years 1 to 9999, nanoseconds below a second.

    The last microsecond of that range is refused: the driver sends it to the database as infinity, which
    is read back as no time.
    """
    within = _TIMESTAMP_SECONDS[0] <= value.seconds <= _TIMESTAMP_SECONDS[1] and 0 <= value.nanos < 10**9
    if not within:
        violations.append(
            Violation(
                path,
                "timestamp",
                "must be a time in the years 1 to 9999, with nanos from 0 to 999,999,999",
            )
        )
    elif value.seconds == _TIMESTAMP_SECONDS[1] and value.nanos >= _LAST_MICROSECOND:
        violations.append(
            Violation(path, "timestamp", "must be a time before the last microsecond of the year 9999")
        )


def duration_check(value: Any, path: str, violations: list[Violation]) -> None:
    """Checks that a Duration is within 10,000 years, and that its two parts have one sign."""
    agree = value.seconds == 0 or value.nanos == 0 or (value.seconds > 0) == (value.nanos > 0)
    if abs(value.seconds) > _DURATION_SECONDS or abs(value.nanos) >= 10**9 or not agree:
        violations.append(
            Violation(
                path,
                "duration",
                "must be at most 10,000 years, its nanos below 1 s and of the same sign as its seconds",
            )
        )
