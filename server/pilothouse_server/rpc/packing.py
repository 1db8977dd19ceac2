"""Requests that are packed (`grpc-encoding: gzip` or `deflate`), unpacked here and not by gRPC.

gRPC unpacks a message on the event loop, and up to its own limit, before anybody can look at it: four kilobytes become
four megabytes and hold up all other calls for some ten milliseconds, and it takes no log-in to send thirty of them a
second. So it is told to hand over what has come (`grpc.per_message_decompression`). What is short is unpacked at once;
what is longer in steps, once its call has its seats, and no further than to the first byte that its method may not
have.

Nobody says which messages are packed. Those by gzip begin as no message does. Those by deflate begin as a message would
whose first field is a number in field 15, which no request has.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from pilothouse_server.rpc.parts import SHORT_BYTES
from pilothouse_server.runtime.event_loop import Share

_GZIP: Final = b"\x1f\x8b"
_DEFLATE: Final = b"\x78"
# Either, as the first bytes say.
_WINDOW: Final = zlib.MAX_WBITS | 32
# Of what is packed, and of what it becomes: some tenths of a millisecond.
_STEP_BYTES: Final = 64 * 1024


def is_packed(raw: bytes) -> bool:
    """Returns whether the bytes begin as what is packed does."""
    return raw[:2] == _GZIP or (raw[:1] == _DEFLATE and int.from_bytes(raw[:2], "big") % 31 == 0)


def unpacked_if_short(raw: bytes) -> bytes:
    """What the bytes become where both are short; else they themselves, as where they cannot be unpacked."""
    if len(raw) > SHORT_BYTES or not is_packed(raw):
        return raw
    try:
        found = b"".join(_steps(raw, SHORT_BYTES))
    except zlib.error:
        return raw
    return found if len(found) <= SHORT_BYTES else raw


async def unpacked(raw: bytes, most: int) -> bytes:
    """What the bytes become, no more of it than `most` and one; they themselves where they cannot be unpacked."""
    if not is_packed(raw):
        return raw
    share, pieces = Share(last=True), []
    try:
        for piece in _steps(raw, most):
            pieces.append(piece)
            await share.used()
    except zlib.error:
        return raw
    return b"".join(pieces)


def _steps(raw: bytes, most: int) -> Iterator[bytes]:
    """What the bytes become, in pieces, until there is more than `most`. Raises zlib.error."""
    unpacker = zlib.decompressobj(_WINDOW)
    left = most + 1
    for at in range(0, len(raw), _STEP_BYTES):
        rest = raw[at : at + _STEP_BYTES]
        while left:
            room = min(left, _STEP_BYTES)
            piece = unpacker.decompress(rest, room)
            rest = unpacker.unconsumed_tail
            left -= len(piece)
            yield piece
            # With no room left it may hold some back, although it has read everything.
            if not rest and len(piece) < room:
                break
        if unpacker.eof or not left:
            return
    raise zlib.error("it ends too soon")
