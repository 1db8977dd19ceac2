"""Converts values of the translator into values of the nouns by way of their messages.

The proto files declare rules for the fields of every noun. A document becomes the message that a caller would send, and
is checked as the request of `Create…`. So an apply accepts the values that the call accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.apply import messages
from pilothouse_manifests.fields import Values
from pilothouse_manifests.services import SPEC
from pilothouse_manifests.table import fields_of
from pilothouse_server.applications.translation.messages.canonical import DECIDED_FIELDS, canonical
from pilothouse_server.config.messages import CONFIG_MAP, SECRET, asked_secret
from pilothouse_server.config.model import ConfigMap, Secret
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.containers.messages import CONTAINER
from pilothouse_server.containers.model import Container
from pilothouse_server.network.messages import SERVICE
from pilothouse_server.network.model import Service
from pilothouse_server.objects.messages import OBJECT
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.rpc.converter import AnswerConverter
from pilothouse_server.rpc.validation import validate_in_steps
from pilothouse_server.storage.messages import VOLUME
from pilothouse_server.storage.model import Volume

# Fields of a Service that a manifest decides.
_SERVICE_FIELDS = tuple(
    field.name
    for field in network_pb2.Service.DESCRIPTOR.fields
    if field.name
    in {"headless", "labels", "annotations", "ports", *(each.name for each in fields_of(SPEC.entries))}
)
_SERVICE_DEFAULTS = {
    field.name: field.default for field in fields_of(SPEC.entries) if field.default is not None
}


def container_values(stored: Container) -> Values:
    """Returns a container as values of the translator."""
    return messages.values(CONTAINER.to_proto(stored))


def decided_fields(values: Values) -> frozenset[str]:
    """Returns the fields of a container that its document decides; `replicas` only if the document states it."""
    return frozenset(name for name in DECIDED_FIELDS if name != "replicas" or name in values)


async def container_of(namespace: str, values: Values) -> Container:
    """Returns the container of these values. Raises InvalidArgument."""
    message = messages.message(container_pb2.Container, values)
    await validate_in_steps(container_pb2.CreateContainerRequest(namespace=namespace, container=message))
    return CONTAINER.from_proto(message)


async def service_of(namespace: str, values: Values) -> Service:
    """Returns the Service of these values. Raises InvalidArgument."""
    message = messages.message(network_pb2.Service, values)
    await validate_in_steps(network_pb2.CreateServiceRequest(namespace=namespace, service=message))
    return SERVICE.from_proto(message)


async def volume_of(namespace: str, values: Values) -> Volume:
    """Returns the volume of these values. Raises InvalidArgument."""
    message = messages.message(storage_pb2.Volume, values)
    await validate_in_steps(storage_pb2.CreateVolumeRequest(namespace=namespace, volume=message))
    return VOLUME.from_proto(message)


async def config_map_of(namespace: str, values: Values) -> ConfigMap:
    """Returns the config map of these values. Raises InvalidArgument."""
    message = messages.message(config_pb2.ConfigMap, values)
    await validate_in_steps(config_pb2.CreateConfigMapRequest(namespace=namespace, config_map=message))
    return CONFIG_MAP.from_proto(message)


async def secret_of(namespace: str, values: Values) -> Asked:
    """Returns the secret of these values. Raises InvalidArgument."""
    message = messages.message(config_pb2.Secret, values)
    await validate_in_steps(config_pb2.CreateSecretRequest(namespace=namespace, secret=message))
    return asked_secret(message)


async def object_of(namespace: str, document: str) -> CarriedObject:
    """Returns the object of a document, without parsing the document. Raises InvalidArgument."""
    message = object_pb2.Object(document=document)
    await validate_in_steps(object_pb2.CreateObjectRequest(namespace=namespace, object=message))
    return OBJECT.from_proto(message)


def changed_container_fields(before: Container, after: Container, names: frozenset[str]) -> frozenset[str]:
    """Returns those of the named fields whose meanings differ between two containers."""
    old, new = canonical(CONTAINER.to_proto(before)), canonical(CONTAINER.to_proto(after))
    return frozenset(name for name in names if getattr(old, name) != getattr(new, name))


def changed_service_fields(before: Service, after: Service) -> frozenset[str]:
    """Returns the fields from a manifest with different meanings in two Services."""
    old, new = _canonical_service(before), _canonical_service(after)
    return frozenset(name for name in _SERVICE_FIELDS if getattr(old, name) != getattr(new, name))


def shown_fields(
    value: Container | Service | Volume | ConfigMap | Secret | CarriedObject, names: frozenset[str]
) -> dict[str, Any]:
    """Returns these fields of a resource as the API shows them, as JSON."""
    message: Message = _CONVERTERS[type(value)].to_proto(value)
    data = MessageToDict(message, preserving_proto_field_name=True)
    return {name: each for name, each in data.items() if name in names}


_CONVERTERS: Mapping[type, AnswerConverter[Any, Any]] = {
    each.struct: each for each in (CONTAINER, SERVICE, VOLUME, CONFIG_MAP, SECRET, OBJECT)
}


def _canonical_service(service: Service) -> network_pb2.Service:
    """Returns the fields that a manifest decides, with the API's defaults, and ports in a fixed order."""
    result = SERVICE.to_proto(service)
    for field, _ in result.ListFields():
        if field.name not in _SERVICE_FIELDS:
            result.ClearField(field.name)  # type: ignore[arg-type]
    said = messages.values(result)
    unsaid = {name: each for name, each in _SERVICE_DEFAULTS.items() if name not in said}
    result.MergeFrom(messages.message(network_pb2.Service, unsaid))
    for port in result.ports:
        port.protocol = port.protocol or network_pb2.PROTOCOL_TCP
        port.target = port.target or str(port.port)
    result.ports.sort(key=lambda each: (each.port, each.protocol))
    return result
