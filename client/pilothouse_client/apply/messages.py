"""From the translator's values to messages: names are the same, enumerations have their type's prefix."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from pilothouse.container.v1 import container_pb2 as pb

M = TypeVar("M", bound=Message)


def message(kind: type[M], values: dict[str, Any]) -> M:
    """The message of this type that says these values."""
    return kind(**_named(kind.DESCRIPTOR, values))


def number_of(enum: EnumDescriptor, word: str) -> int:
    """The number of an enumeration's value by the translator's word: `TCP` is `PROTOCOL_TCP`."""
    prefix = str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")
    return int(enum.values_by_name[prefix + word.upper()].number)


def protocol_of(port: dict[str, Any]) -> pb.Protocol.ValueType:
    """The protocol of a port."""
    return pb.Protocol.ValueType(number_of(pb.Protocol.DESCRIPTOR, port["protocol"]))


def _named(descriptor: Descriptor | Any, values: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(descriptor.fields_by_name[name], value) for name, value in values.items()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return number_of(field.enum_type, value)
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return value
    if isinstance(value, list):
        return [_named(field.message_type, item) for item in value]
    return _named(field.message_type, value)
