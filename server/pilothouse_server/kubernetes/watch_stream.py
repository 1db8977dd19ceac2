"""A watch's stream: lines of any length, without a quadratic search, and each line as an event.

The client library's watch reads lines with a buffer limit of 4 MiB and turns a longer one into an error that repeats
for ever. Here a line may be as long as an object can be with all its history of managed fields.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Generic, Literal, cast

import msgspec

from pilothouse_server.kubernetes.decoding import decode
from pilothouse_server.kubernetes.errors import UNREADABLE, Status, Unreachable, Unreadable, from_status
from pilothouse_server.kubernetes.fingerprints import read
from pilothouse_server.kubernetes.left_out import known
from pilothouse_server.kubernetes.objects import KubernetesObject, Resource, T
from pilothouse_server.outbound.destinations import TooLong

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class WatchEvent(msgspec.Struct, Generic[T], frozen=True):
    """A change. `object` of a BOOKMARK has only its metadata, of which the resourceVersion matters."""

    type: EventType
    object: T

    @property
    def resource_version(self) -> str:
        """The version from which to resume after this event."""
        return self.object.metadata.resource_version


class Line(msgspec.Struct):
    """A line whose object has not been read yet."""

    type: str
    object: msgspec.Raw


_decode_line = msgspec.json.Decoder(Line).decode


def cut_line(line: bytes) -> Line:
    """Returns the type of the event, and its object undecoded. Raises Unreachable for a malformed line."""
    try:
        return _decode_line(line)
    except UNREADABLE as error:
        raise Unreachable("a line of a watch cannot be read") from error


def decode_event(
    event: Line, resource: Resource[T], left_out: Callable[[str, tuple[str, str]], None]
) -> WatchEvent[T]:
    """Returns the event. An unreadable object is reported to `left_out`; its event is a deletion or a bookmark.

    Raises Unreachable for an event of unknown type, and the error that an ERROR event contains.
    """
    if event.type == "ERROR":
        raise from_status(decode(event.object, Status))
    if event.type not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise Unreachable("a watch sent an event of unknown type")
    if event.type == "BOOKMARK":
        # The rest of a bookmark is not a valid object: a pod without containers, `null` where a list must be.
        metadata = decode(event.object, KubernetesObject).metadata
        return WatchEvent("BOOKMARK", resource.type(metadata=metadata))
    try:
        return WatchEvent(cast("EventType", event.type), read(event.object, resource))
    except Unreadable:
        return without_object(event, resource, left_out)


def without_object(
    event: Line, resource: Resource[T], left_out: Callable[[str, tuple[str, str]], None]
) -> WatchEvent[T]:
    """Returns the event of an object that is not read, and reports the object to `left_out`."""
    metadata = known(event.object).metadata
    left_out(resource.kind, (metadata.namespace, metadata.name))
    kind: EventType = "DELETED" if event.type == "DELETED" else "BOOKMARK"
    return WatchEvent(kind, resource.type(metadata=metadata))


async def split_lines(
    chunks: AsyncIterable[bytes], most: int, before: Callable[[], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Yields whole lines without their end; empty ones are skipped, and so is a last one that was cut off.

    `before` is awaited ahead of each line, also of an empty one: a chunk may hold as many lines as bytes. Raises
    TooLong for a line over `most` bytes.
    """
    pending = bytearray()
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            await before()
            line = bytes(pending) + chunk[start:end] if pending else chunk[start:end]
            pending.clear()
            start = end + 1
            if len(line) > most:
                raise TooLong
            if line.strip():
                yield line
        pending += chunk[start:]
        if len(pending) > most:
            pending.clear()
            raise TooLong
