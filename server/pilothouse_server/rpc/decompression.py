"""Decompression of requests (`grpc-encoding: gzip` or `deflate`) here, and not by gRPC.

gRPC decompresses a message on the event loop, up to its own limit, before the server can check it. Four
kilobytes become four megabytes and delay all other calls by some ten milliseconds, and it takes no log-in to
send thirty of them a second. So gRPC hands over the received bytes (`grpc.per_message_decompression`). A
short request is decompressed immediately. A longer one is decompressed in steps, when its call has its seats, and no
further than one byte beyond the limit of its method.

Nothing marks a compressed message. A gzip message begins like no protobuf message. A deflate message begins like a
protobuf message whose first field is a number in field 15, and no request has such a field.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from pilothouse_server.rpc.field_count import SHORT_BYTES
from pilothouse_server.runtime.event_loop import Share

_GZIP: Final = b"\x1f\x8b"
_DEFLATE: Final = b"\x78"
# Either format, by the first bytes.
_WINDOW: Final = zlib.MAX_WBITS | 32
# The number of compressed, and of decompressed, bytes in a step, which takes some tenths of a millisecond.
_STEP_BYTES: Final = 64 * 1024


def is_compressed(raw: bytes) -> bool:
    """Returns whether the bytes begin like a compressed message."""
    return raw[:2] == _GZIP or (raw[:1] == _DEFLATE and int.from_bytes(raw[:2], "big") % 31 == 0)


def decompress_if_short(raw: bytes) -> bytes:
    """Returns the decompressed bytes if both forms are short.

    Returns the bytes as they are if one is long, or if they are malformed.
    """
    if len(raw) > SHORT_BYTES or not is_compressed(raw):
        return raw
    try:
        found = b"".join(_steps(raw, SHORT_BYTES))
    except zlib.error:
        return raw
    return found if len(found) <= SHORT_BYTES else raw


async def decompress(raw: bytes, most: int) -> bytes:
    """Returns the decompressed bytes, at most `most` + 1 of them; the bytes as they are if they are malformed."""
    if not is_compressed(raw):
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
    """Yields the decompressed bytes in pieces, until there are more than `most`.

    Raises zlib.error.
    """
    decompressor = zlib.decompressobj(_WINDOW)
    left = most + 1
    for at in range(0, len(raw), _STEP_BYTES):
        rest = raw[at : at + _STEP_BYTES]
        while left:
            room = min(left, _STEP_BYTES)
            piece = decompressor.decompress(rest, room)
            rest = decompressor.unconsumed_tail
            left -= len(piece)
            yield piece
            # If no room was left, zlib may have more output, although it has read all of its input.
            if not rest and len(piece) < room:
                break
        if decompressor.eof or not left:
            return
    raise zlib.error("it ends too soon")
