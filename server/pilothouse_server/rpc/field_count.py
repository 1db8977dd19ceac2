"""The number of fields of a request, counted in its bytes before they are parsed.

A message of four megabytes may contain two million empty messages. Parsing those delays all other calls by half a
second, and takes two hundred megabytes. Bytes become much larger only if they contain many fields, so the fields are
counted first: each message, text, item and entry is one; a number, which becomes no larger, counts for an eighth.
Counting takes longer than parsing, but it is done in steps, between which other calls are served, and it ends at
a bound that no valid request reaches.

A short request is not counted: it cannot contain many fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor

from pilothouse_server.runtime.event_loop import Share

# The largest requests are 5,000 samples, of half a dozen texts and two dozen numbers each, and a container with 25
# programs of 512 variables.
MOST_FIELDS: Final = 100_000
_OF_A_NUMBER, _OF_OTHERS = 1, 8
SHORT_BYTES: Final = 64 * 1024
# The number of fields that are counted in a step, which takes half a millisecond.
_STEP: Final = 1_000
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# The longest varint, also of a tag.
_MOST_VARINT_BYTES: Final = 10

# Fields that contain messages, by their number, each with the same for those messages.
_Fields: TypeAlias = "dict[int, _Fields]"


class Malformed(ValueError):
    """The bytes are not a message."""


async def too_many_fields(raw: bytes, descriptor: Descriptor, most: int = MOST_FIELDS) -> bool:
    """Returns whether the bytes of a message have more than `most` fields.

    Raises Malformed.
    """
    if len(raw) <= SHORT_BYTES:
        return False
    share = Share(last=True)
    try:
        for weight in _weights(raw, _fields(descriptor)):
            if weight > most * _OF_OTHERS:
                return True
            await share.used()
    except IndexError:
        raise Malformed from None
    return False


def _weights(raw: bytes, fields: _Fields) -> Iterator[int]:
    """Walks over the fields of a message and of its inner messages, and yields their total weight.

    It yields after each step and at the end. Raises IndexError if the bytes end too soon.
    """
    at, end, looked_at, weight = 0, len(raw), 0, 0
    around: list[tuple[int, _Fields]] = []
    while True:
        while at >= end:
            if at > end or not around:
                yield weight
                if at > end:
                    raise Malformed
                return
            end, fields = around.pop()
        tag, at = (raw[at], at + 1) if raw[at] < 128 else _varint(raw, at)
        looked_at += 1
        if looked_at % _STEP == 0:
            yield weight
        if tag & 7 != _LENGTH:
            weight += _OF_A_NUMBER
            at = _after_number(raw, at, tag & 7)
            continue
        weight += _OF_OTHERS
        length, at = (raw[at], at + 1) if raw[at] < 128 else _varint(raw, at)
        within = fields.get(tag >> 3)
        if within is None:
            at += length
            continue
        around.append((end, fields))
        if at + length > end:
            raise Malformed
        end, fields = at + length, within


def _after_number(raw: bytes, at: int, wire_type: int) -> int:
    if wire_type == _VARINT:
        return _varint(raw, at)[1]
    if wire_type == _FIXED64:
        return at + 8
    if wire_type == _FIXED32:
        return at + 4
    # Groups, which none of our messages has.
    raise Malformed


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Returns the number at this position, and the position after it."""
    number = 0
    for place in range(_MOST_VARINT_BYTES):
        byte = raw[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise Malformed


@cache
def _fields(descriptor: Descriptor) -> _Fields:
    return _compiled(descriptor, {})


def _compiled(descriptor: Descriptor, known: dict[str, _Fields]) -> _Fields:
    # Stored before it is filled, because a message may contain its own type.
    found: _Fields = known.setdefault(descriptor.full_name, {})
    for field in descriptor.fields:
        held: Any = field.message_type
        if held is not None:
            within = known.get(held.full_name)
            found[field.number] = _compiled(held, known) if within is None else within
    return found
