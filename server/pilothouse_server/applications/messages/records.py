"""Audit records of the objects that one call writes, each in the form of its noun.

Each record has the call's record as its `parent_operation_id`, and is committed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import uuid4

from google.protobuf.message import Message

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.applications.writing import WrittenObject
from pilothouse_server.config.messages import CONFIG_MAP, SECRET
from pilothouse_server.containers.messages import CONTAINER
from pilothouse_server.network.messages import SERVICE
from pilothouse_server.objects.messages import BASIC
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.call import Call
from pilothouse_server.storage.messages import VOLUME
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.unit_of_work import Actor


class _NounForm(NamedTuple):
    """The form of a noun's calls in records: path of its service, word in its methods, field, and messages."""

    service: str
    word: str
    field: str
    to_proto: Callable[[Any], Message]
    messages: Any


_FORMS: Final[Mapping[str, _NounForm]] = {
    "container": _NounForm(
        "pilothouse.container.v1.ContainerService",
        "Container",
        "container",
        CONTAINER.to_proto,
        container_pb2,
    ),
    "service": _NounForm(
        "pilothouse.network.v1.NetworkService", "Service", "service", SERVICE.to_proto, network_pb2
    ),
    "object": _NounForm("pilothouse.object.v1.ObjectService", "Object", "object", BASIC.to_proto, object_pb2),
    "volume": _NounForm(
        "pilothouse.storage.v1.StorageService", "Volume", "volume", VOLUME.to_proto, storage_pb2
    ),
    "config_map": _NounForm(
        "pilothouse.config.v1.ConfigService", "ConfigMap", "config_map", CONFIG_MAP.to_proto, config_pb2
    ),
    "secret": _NounForm(
        "pilothouse.config.v1.ConfigService", "Secret", "secret", SECRET.to_proto, config_pb2
    ),
}
_VERBS: Final = {"create": "Create", "update": "Update", "delete": "Delete"}


class RecordCause(NamedTuple):
    """The operation that the records belong to, its actor and address, and the time by the server's clock."""

    operation: str
    actor: Actor
    client_ip: str
    now: datetime


def cause_of(call: Call) -> RecordCause:
    """Returns the cause of records that a call makes."""
    return RecordCause(call.operation, call.actor, call.client_ip, call.store.clock.now())


def record_of(cause: RecordCause, written: WrittenObject) -> AuditRecord:
    """Returns the record of one object that an operation has written."""
    form, after = _FORMS[written.key.noun], written.after
    message = form.to_proto(after)
    name = f"{_VERBS[written.action]}{form.word}"
    request = getattr(form.messages, f"{name}Request")(namespace=after.namespace)
    if written.action != "create":
        request.name = after.name
        if written.key.noun == "object":
            request.api_version, request.kind = after.api_version, after.kind
    if written.action != "delete":
        getattr(request, form.field).CopyFrom(message)
    metadata: dict[str, Any] = {
        "namespace": after.namespace,
        "resource_uid": after.uid,
        "parent_operation_id": cause.operation,
    }
    if written.before is not None and written.action == "update":
        metadata["changes"] = redaction.changes(form.to_proto(written.before), message, written.secrets)
    return AuditRecord(
        operation_id=uuid4(),
        user_id=cause.actor.user_id,
        username=cause.actor.username[:50] or None,
        action=written.action,
        resource_type=written.key.noun,
        resource_id=after.id,
        resource_name=after.name,
        namespace_id=after.namespace_id,
        request_path=f"/{form.service}/{name}",
        request_body=redaction.body(request),
        client_ip=cause.client_ip[:45] or None,
        status_code=200,
        duration_ms=0,
        started_at=cause.now,
        completed_at=cause.now,
        metadata=metadata,
    )
