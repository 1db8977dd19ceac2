"""gRPC-Web's binary form: messages with a prefix of five bytes, then metadata as text.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

import grpc

from pilothouse_server.errors import InvalidArgument
from pilothouse_server.rpc.infrastructure import no_request

PREFIX_BYTES: Final = 5
_TRAILERS: Final = 0x80
_COMPRESSED: Final = 0x01
_PREFIX: Final = struct.Struct(">BI")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")


def message_frame(message: bytes) -> bytes:
    """Returns a message with its prefix."""
    return _PREFIX.pack(0, len(message)) + message


def trailers_frame(code: grpc.StatusCode, message: str, trailing: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Returns the frame that ends a call."""
    lines = [f"grpc-status: {code.value[0]}"]
    if message:
        lines.append(f"grpc-message: {quote(message, safe=' !#$&()*+,/:;=?@[]{}|~')}")
    lines += [f"{name}: {_text(value)}" for name, value in trailing]
    text = "".join(f"{line}\r\n" for line in lines).encode()
    return _PREFIX.pack(_TRAILERS, len(text)) + text


def read_request(body: bytes) -> bytes:
    """Returns the one message of a unary request; the frame of its trailers, if it has one, is ignored.

    Raises:
        InvalidArgument: MALFORMED_MESSAGE, the body is not one frame with a message.
    """
    if not body:
        raise no_request()
    flags, message, rest = _split(body)
    if flags & _TRAILERS:
        raise no_request()
    if rest and not rest[0] & _TRAILERS:
        raise _malformed("it has more than one message")
    return message


def read_frame(frame: bytes) -> tuple[bool, bytes]:
    """Returns whether a WebSocket frame contains metadata, and its contents.

    Raises the same as `read_request`.
    """
    flags, contents, rest = _split(frame)
    if rest:
        raise _malformed("each WebSocket frame must contain exactly one gRPC-Web frame")
    return bool(flags & _TRAILERS), contents


def read_metadata(text: bytes) -> list[tuple[str, str]]:
    """Returns the lines of metadata as pairs. Raises the same as `read_request`."""
    try:
        lines = [line.partition(":") for line in text.decode("ascii").split("\r\n") if line]
    except UnicodeDecodeError:
        raise _malformed("its metadata is not ASCII") from None
    return [(name.strip().lower(), value.strip()) for name, _, value in lines]


def timeout_seconds(text: str) -> float | None:
    """Returns the seconds of `grpc-timeout`; None if the header is missing or cannot be parsed."""
    found = _TIMEOUT.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def _split(body: bytes) -> tuple[int, bytes, bytes]:
    if len(body) < PREFIX_BYTES:
        raise _malformed("it is shorter than a prefix of five bytes")
    flags, length = _PREFIX.unpack_from(body)
    if flags & ~(_TRAILERS | _COMPRESSED) or len(body) < PREFIX_BYTES + length:
        raise _malformed("its prefix has unknown flags, or a length beyond its end")
    end = PREFIX_BYTES + length
    return flags, body[PREFIX_BYTES:end], body[end:]


def _text(value: str | bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=") if isinstance(value, bytes) else value


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(f"the request is not in gRPC-Web's binary form: {why}", reason="MALFORMED_MESSAGE")
