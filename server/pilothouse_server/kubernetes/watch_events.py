"""A line of a watch as an event."""

from __future__ import annotations

from typing import Generic, Literal, cast

import msgspec

from pilothouse_server.kubernetes.errors import Status, Unreachable, from_status
from pilothouse_server.kubernetes.objects import KubernetesObject, T
from pilothouse_server.kubernetes.transport import decode

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class WatchEvent(msgspec.Struct, Generic[T], frozen=True):
    """A change. `object` of a BOOKMARK holds nothing but its metadata, of which the resourceVersion counts."""

    type: EventType
    object: T

    @property
    def resource_version(self) -> str:
        """Where to resume after this event."""
        return self.object.metadata.resource_version


class _Line(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


def decode_event(line: bytes, type_: type[T]) -> WatchEvent[T]:
    """The event. Raises Unreachable for a line that is none, and the error that an ERROR event tells."""
    try:
        event = _decode_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreachable(f"a line of a watch cannot be read: {error}") from error
    if event.type == "ERROR":
        raise from_status(decode(event.object, Status))
    if event.type not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise Unreachable(f"a watch sent an event of unknown type {event.type!r}")
    if event.type == "BOOKMARK":
        # The rest of it is no object: a pod without containers, `null` where a list must be.
        return WatchEvent("BOOKMARK", type_(metadata=decode(event.object, KubernetesObject).metadata))
    return WatchEvent(cast("EventType", event.type), decode(event.object, type_))
