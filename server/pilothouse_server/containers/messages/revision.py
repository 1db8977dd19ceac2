"""Revisions of a container: value → protobuf, with their differences in the fields of `Container`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict

from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.containers.messages.container import CONTAINER
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.revisions import DesiredFields, Revision, desired_fields, restored

_MOST_CHANGES = 100
_LONGEST_VALUE = 1000
_NAMES = frozenset(path for path in CONTAINER.updatable if "." not in path)


def revision_to_proto(container: Container, *, whole: bool) -> Callable[[Revision], resource_pb2.Revision]:
    """Returns the function that renders a revision of a container; `whole`: with its document."""

    def to_proto(revision: Revision) -> resource_pb2.Revision:
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
        resource_pb2.FieldChange(path=path, before=_shown(old), after=_shown(new))
        for path, old, new in islice(_differences(before, after), _MOST_CHANGES)
    ]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    text = _json(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yields path, former and present value of each field that differs between two JSON objects; None: it has none.

    Objects are compared field by field. A list of objects with names is compared by name, any other as a whole.
    """
    for name in sorted(before.keys() | after.keys()):
        old, new, path = before.get(name), after.get(name), f"{within}{name}"
        if old == new:
            continue
        old_parts, new_parts = _parts(old), _parts(new)
        if old_parts is None or new_parts is None:
            yield path, old, new
        else:
            yield from _differences(old_parts, new_parts, f"{path}.")


def _parts(value: Any) -> Mapping[str, Any] | None:
    """Returns an object as it is, and a list as an object if each of its items has a name of its own."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list) or not all(
        isinstance(item, Mapping) and item.get("name") for item in value
    ):
        return None
    named = {item["name"]: item for item in value}
    return named if len(named) == len(value) else None
