"""The limit of a request's bytes, computed from the rules of its fields: every valid request is within it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pilothouse.audit.v1 import audit_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import api_keys_pb2, identity_pb2, permissions_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse_server.rpc.field_checks import (
    DEFAULT_BYTES,
    DEFAULT_CHARACTERS,
    DEFAULT_ITEMS,
    descriptor_of,
    is_map,
    map_fields,
    rule_of,
)
from pilothouse_server.rpc.longest import LEAST_BYTES, most_bytes_of

# A character of four bytes in UTF-8.
_WIDEST = "\N{GRINNING FACE}"
_PATH = "a.path.of.a.mask"


def _value(field: FieldDescriptor, most: int, number: int) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"x" * (most or DEFAULT_BYTES)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return f"{number:03d}" + _WIDEST * ((most or DEFAULT_CHARACTERS) - 3)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return 1.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    return 2**31 - 1 if field.enum_type is None else max(field.enum_type.values_by_number)


def _fill(message: Any) -> None:
    """Sets each field to the longest value that its rule allows."""
    name = descriptor_of(message).full_name
    if name == "google.protobuf.FieldMask":
        message.paths.extend([_PATH] * DEFAULT_ITEMS)
        return
    if name.startswith("google.protobuf."):
        message.seconds, message.nanos = 2**35, 999_999_999
        return
    for field in descriptor_of(message).fields:
        rule = rule_of(field)
        place, most = getattr(message, field.name), rule.max_items or DEFAULT_ITEMS
        if is_map(field):
            key, value = map_fields(field)
            for number in range(most):
                place[_value(key, 0, number)] = _value(value, rule.max_length, number)
        elif field.is_repeated and field.message_type is not None:
            for _ in range(most):
                _fill(place.add())
        elif field.is_repeated:
            place.extend(_value(field, rule.max_length, number) for number in range(most))
        elif field.message_type is not None:
            _fill(place)
        else:
            setattr(message, field.name, _value(field, rule.max_length, 0))


@pytest.mark.parametrize(
    "request_type",
    [
        api_keys_pb2.CreateApiKeyRequest,
        identity_pb2.CreateRoleRequest,
        identity_pb2.UpdateRoleRequest,
        identity_pb2.UpdateUserRequest,
        permissions_pb2.SimulateGrantRequest,
        config_pb2.RevealSecretRequest,
        container_pb2.ListContainersRequest,
        container_pb2.ImportContainersRequest,
        network_pb2.ListServicesRequest,
        network_pb2.ImportServicesRequest,
        object_pb2.ListObjectsRequest,
        object_pb2.ImportObjectsRequest,
        audit_pb2.CreateAuditSinkRequest,
        audit_pb2.ExportAuditLogRequest,
    ],
)
def test_the_longest_valid_request_is_within_the_limit(request_type: type[Message]) -> None:
    request = request_type()
    _fill(request)
    bound = most_bytes_of(descriptor_of(request))
    assert request.ByteSize() <= bound < 6 * 1024 * 1024


def test_a_short_request_has_the_least_limit() -> None:
    request = container_pb2.GetContainerRequest()
    _fill(request)
    assert request.ByteSize() < LEAST_BYTES == most_bytes_of(descriptor_of(request))


@pytest.mark.parametrize(
    "request_type",
    [
        container_pb2.CreateContainerRequest,
        container_pb2.UpdateContainerRequest,
        network_pb2.CreateServiceRequest,
        network_pb2.UpdateServiceRequest,
        object_pb2.CreateObjectRequest,
        object_pb2.UpdateObjectRequest,
        config_pb2.CreateConfigMapRequest,
        namespace_pb2.UpdateNamespaceRequest,
        namespace_pb2.RegisterClusterRequest,
        namespace_pb2.UpdateClusterRequest,
    ],
)
def test_messages_with_fields_that_the_server_sets_have_no_limit(request_type: type[Message]) -> None:
    """A client may send back a resource as it read it, with its status."""
    assert most_bytes_of(descriptor_of(request_type)) > 1 << 60
