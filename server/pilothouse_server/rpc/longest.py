"""Computes from the descriptors how long a valid request can be.

A longer request is refused by its size, before it is parsed: parsing, checking and recording it would take too
long. A name of four megabytes would delay all other calls by 40 ms, only to be refused as too long.

A resource that is sent back as it was read contains fields that only the server sets, which no rule bounds.
Their texts are counted generously, and a request that may contain such messages has no bound of its own.
"""

from __future__ import annotations

import functools
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.rpc.field_checks import (
    DEFAULT_BYTES,
    DEFAULT_CHARACTERS,
    DEFAULT_ITEMS,
    is_map,
    map_fields,
    rule_of,
)

# Requests of this size take hardly any time, and an error that names the field is better than one about the size.
LEAST_BYTES: Final = 256 * 1024
_UNBOUNDED: Final = 1 << 62
# The bytes of a field's tag and length, of a number, and of a character.
_AROUND_BYTES, _NUMBER_BYTES, _CHARACTER_BYTES = 10, 10, 4
_WELL_KNOWN: Final = {
    "google.protobuf.Timestamp": 24,
    "google.protobuf.Duration": 24,
    "google.protobuf.FieldMask": DEFAULT_ITEMS * DEFAULT_CHARACTERS,
}


@functools.cache
def most_bytes_of(descriptor: Descriptor) -> int:
    """Returns the most bytes of a valid request; a number larger than any message if it has no bound."""
    return max(LEAST_BYTES, _of_message(descriptor, frozenset()))


def _of_message(descriptor: Descriptor, within: frozenset[str]) -> int:
    name = descriptor.full_name
    if name in _WELL_KNOWN:
        return _WELL_KNOWN[name]
    if name in within:
        return _UNBOUNDED
    fields = (_of_field(field, within | {name}) for field in descriptor.fields)
    return min(_UNBOUNDED, sum(fields))


def _of_field(field: FieldDescriptor, within: frozenset[str]) -> int:
    rule = rule_of(field)
    if rule.output_only and field.message_type is None and not field.is_repeated:
        return LEAST_BYTES // 4
    if (
        rule.output_only
        and field.message_type is not None
        and field.message_type.full_name not in _WELL_KNOWN
    ):
        return _UNBOUNDED
    items = (rule.max_items or DEFAULT_ITEMS) if field.is_repeated else 1
    if is_map(field):
        key, value = map_fields(field)
        each = _of_value(key, options.FieldRule(), within) + _of_value(value, rule, within)
    else:
        each = _of_value(field, rule, within)
    return min(_UNBOUNDED, items * (each + _AROUND_BYTES))


def _of_value(field: FieldDescriptor, rule: options.FieldRule, within: frozenset[str]) -> int:
    if field.message_type is not None:
        return _of_message(field.message_type, within)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rule.max_length or DEFAULT_BYTES
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return (rule.max_length or DEFAULT_CHARACTERS) * _CHARACTER_BYTES
    return _NUMBER_BYTES
