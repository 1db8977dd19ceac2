"""Converts between the translator's values and messages.

Field names are the same in both; values have Kubernetes' words for enumerations. The server turns documents into
messages with it, and the command's `-o manifest` turns messages into documents.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_manifests.fields import Values
from pilothouse_manifests.services import HEADLESS, TYPES
from pilothouse_manifests.translator.attach import NO_SERVICE

M = TypeVar("M", bound=Message)

# The translator's words for the values of each enumeration; the others stay numbers in values.
_WORDS: dict[EnumDescriptor, tuple[str, ...]] = {
    pb.Protocol.DESCRIPTOR: ("TCP", "UDP"),
    pb.ServiceType.DESCRIPTOR: (*TYPES, HEADLESS, NO_SERVICE),
    pb.EnvValueFrom.DESCRIPTOR: ("literal", "config_map", "secret", "field_ref", "resource_field_ref"),
    network_pb2.ServiceType.DESCRIPTOR: (*TYPES, "ExternalName"),
    network_pb2.Protocol.DESCRIPTOR: ("TCP", "UDP", "SCTP"),
    network_pb2.SessionAffinity.DESCRIPTOR: ("None", "ClientIP"),
    network_pb2.TrafficPolicy.DESCRIPTOR: ("Cluster", "Local"),
    network_pb2.IpFamily.DESCRIPTOR: ("IPv4", "IPv6"),
    network_pb2.IpFamilyPolicy.DESCRIPTOR: ("SingleStack", "PreferDualStack", "RequireDualStack"),
    storage_pb2.VolumeType.DESCRIPTOR: ("persistent_volume_claim", "config_map", "secret", "host_path"),
    storage_pb2.AccessMode.DESCRIPTOR: ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"),
}


def message(kind: type[M], values: Values) -> M:
    """Returns the message of this type with these values."""
    return kind(**_named(kind.DESCRIPTOR, values))


def values(message: Message) -> Values:
    """Returns the fields of a message that are set, as values."""
    return {field.name: _said(field, value) for field, value in message.ListFields()}


def _squeezed(word: str) -> str:
    return word.replace("_", "").lower()


def _numbers(enum: EnumDescriptor, words: tuple[str, ...]) -> dict[str, int]:
    """Returns the number of each word: `TCP` is `PROTOCOL_TCP`, `ClusterIP` is `SERVICE_TYPE_CLUSTER_IP`."""
    prefix = str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")
    numbers = {_squeezed(each.name.removeprefix(prefix)): int(each.number) for each in enum.values}
    return {word: numbers[_squeezed(word)] for word in words}


_NUMBERS = {enum.full_name: _numbers(enum, words) for enum, words in _WORDS.items()}
_WORD_OF = {name: {number: word for word, number in each.items()} for name, each in _NUMBERS.items()}


def _named(descriptor: Descriptor | Any, said: Values) -> dict[str, Any]:
    return {name: _value(descriptor.fields_by_name[name], value) for name, value in said.items()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        numbers = _NUMBERS.get(field.enum_type.full_name, {})
        return [numbers.get(each, each) for each in value] if field.is_repeated else numbers.get(value, value)
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return value
    if isinstance(value, list):
        return [_named(field.message_type, item) for item in value]
    return _named(field.message_type, value)


def _said(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        words = _WORD_OF.get(field.enum_type.full_name, {})
        return [words.get(each, each) for each in value] if field.is_repeated else words.get(value, value)
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if field.message_type.GetOptions().map_entry:
        return dict(value)
    return [values(item) for item in value] if field.is_repeated else values(value)
