"""Read masks: the fields of a resource that a list or a watch returns.

A resource is serialized once, when it is committed, with all its fields. So a mask copies whole fields from these
bytes, without parsing or rendering. A row of a table that needs a sixth of a container is sent no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from pilothouse_server.errors import invalid
from pilothouse_server.rpc.encoding import varint
from pilothouse_server.rpc.field_checks import alternatives, descriptor_of

# These fields identify the resource, so they are always returned.
_ALWAYS: Final = ("uid", "id", "name", "username", "namespace", "operation_id")
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class ReadMask:
    """The numbers of the fields that are returned; for a message of alternatives, the mask of each."""

    __slots__ = ("_within", "numbers")

    def __init__(self, numbers: frozenset[int], within: Mapping[int, ReadMask] | None = None) -> None:
        self.numbers = numbers
        self._within = within or {}

    def masked(self, message: bytes) -> bytes:
        """Returns a serialized resource, or a part of one, without the other fields."""
        if self._within:
            return self._held(message)
        kept, at, end = [], 0, len(message)
        while at < end:
            begin = at
            tag, at = _varint(message, at)
            kind = tag & 7
            if kind == _LENGTH:
                length, at = _varint(message, at)
                at += length
            elif kind == _VARINT:
                _, at = _varint(message, at)
            else:
                assert kind in (_EIGHT_BYTES, _FOUR_BYTES), "the server has written it"
                at += 8 if kind == _EIGHT_BYTES else 4
            if tag >> 3 in self.numbers:
                kept.append(message[begin:at])
        return b"".join(kept)

    def _held(self, message: bytes) -> bytes:
        kept, at = [], 0
        while at < len(message):
            tag, at = _varint(message, at)
            length, at = _varint(message, at)
            held = self._within[tag >> 3].masked(message[at : at + length])
            kept += [varint(tag), varint(len(held)), held]
            at += length
        return b"".join(kept)


def of_request(request: Any, resource: type[Message]) -> ReadMask | None:
    """Returns the mask of a request; None if it has none.

    Raises:
        InvalidArgument: a path is not a field of the resource.
    """
    paths = request.read_mask.paths
    return _mask(descriptor_of(resource), tuple(paths)) if paths else None


# A client sends the same mask with each page that it requests.
@lru_cache(maxsize=256)
def _mask(resource: Descriptor, paths: tuple[str, ...]) -> ReadMask:
    several = alternatives(resource)
    parts = several.values() or (resource,)
    for path in paths:
        if not any(path in each.fields_by_name for each in parts):
            raise invalid(
                "read_mask",
                f'"{path[:100]}" is not a field of {resource.name}: name whole fields, such as name or status',
                reason="READ_MASK",
            )
    if not several:
        return _numbers(resource, paths)
    return ReadMask(frozenset(), {number: _numbers(each, paths) for number, each in several.items()})


def _numbers(resource: Descriptor, paths: tuple[str, ...]) -> ReadMask:
    fields = resource.fields_by_name
    return ReadMask(frozenset(fields[name].number for name in (*paths, *_ALWAYS) if name in fields))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = message[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
