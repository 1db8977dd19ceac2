"""Protobuf by hand, where messages are put together from parts that are serialised already."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Returns a number that is not negative as protobuf writes it: as a value, a tag or a length."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append((value & 0x7F) | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def embedded(number: int, *parts: bytes) -> bytes:
    """Returns a field that holds a message, or bytes or text, which `parts` make up one after the other."""
    return b"".join((varint(number << 3 | 2), varint(sum(map(len, parts))), *parts))
