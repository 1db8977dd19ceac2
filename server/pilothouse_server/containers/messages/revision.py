"""Revisions of a container: value → protobuf, with their differences in the fields of `Container`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict

from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.containers.messages.container import CONTAINER
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.revisions import DesiredFields, desired_fields, restored
from pilothouse_server.revisions.model import Revision
from pilothouse_server.values.field_differences import changed_values

_NAMES = frozenset(path for path in CONTAINER.updatable if "." not in path)


def revision_to_proto(
    container: Container, *, whole: bool
) -> Callable[[Revision[DesiredFields]], resource_pb2.Revision]:
    """Returns the function that renders a revision of a container; `whole`: with its document."""

    def to_proto(revision: Revision[DesiredFields]) -> resource_pb2.Revision:
        fields = _fields(container, revision.desired)
        message = resource_pb2.Revision(
            number=revision.number,
            created_by=revision.created_by,
            operation_id=revision.operation_id,
            origin=revision.origin or 0,
        )
        message.create_time.FromDatetime(revision.created_at)
        if whole:
            message.documents.append(_json({"name": container.name, **fields}))
        if revision.before is not None:
            message.changes.extend(_changes(_fields(container, revision.before), fields))
        return message

    return to_proto


def changes_between(before: Container, after: Container) -> list[resource_pb2.FieldChange]:
    """Returns how the fields that callers set differ between two states of a container."""
    return _changes(_fields(after, desired_fields(before)), _fields(after, desired_fields(after)))


def _fields(container: Container, desired: DesiredFields) -> dict[str, Any]:
    """Returns the fields of the message `Container` that callers set, as JSON."""
    message = CONTAINER.to_proto(restored(container, desired))
    data = MessageToDict(message, preserving_proto_field_name=True)
    return {name: value for name, value in data.items() if name in _NAMES}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[resource_pb2.FieldChange]:
    return [
        resource_pb2.FieldChange(path=path, before=old, after=new)
        for path, old, new in changed_values(before, after)
    ]


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
