"""The server decompresses requests, up to the most bytes that each may have."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest

from pilothouse_server.rpc import decompression
from pilothouse_server.rpc.decompression import decompress, decompress_if_short, is_compressed
from pilothouse_server.rpc.field_count import SHORT_BYTES
from pilothouse_server.runtime.event_loop import Share
from tests.services import METHODS

_MESSAGE = b"\x0a\x05noisy\x12\x03web"
_NOISE = random.Random(10).randbytes(300_000)
_MEBIBYTE = 1024 * 1024
_every_packer = pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
_Packer = Callable[[bytes], bytes]


@_every_packer
@pytest.mark.parametrize("raw", [b"", _MESSAGE, b"x" * SHORT_BYTES], ids=["empty", "small", "short"])
async def test_a_short_request_is_decompressed_immediately(pack: _Packer, raw: bytes) -> None:
    packed = pack(raw)
    assert is_compressed(packed)
    assert decompress_if_short(packed) == raw
    assert await decompress(packed, SHORT_BYTES) == raw


@_every_packer
async def test_a_longer_request_is_decompressed_up_to_its_limit(pack: _Packer) -> None:
    for raw in (b"x" * (SHORT_BYTES + 1), b"x" * _MEBIBYTE, _NOISE):
        packed = pack(raw)
        assert decompress_if_short(packed) == packed
        assert await decompress(packed, len(raw)) == raw
        for most in (len(raw) - 1, SHORT_BYTES - 7, 1, 0):
            assert await decompress(packed, most) == raw[: most + 1]


@_every_packer
async def test_decompression_yields_between_steps(pack: _Packer, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    class Counting(Share):
        async def used(self) -> None:
            nonlocal steps
            steps += 1
            await super().used()

    monkeypatch.setattr(decompression, "Share", Counting)
    assert await decompress(pack(b"x" * 4 * _MEBIBYTE), 4 * _MEBIBYTE) == b"x" * 4 * _MEBIBYTE
    assert steps >= 4 * _MEBIBYTE // SHORT_BYTES


@_every_packer
async def test_malformed_bytes_stay_as_they_are(pack: _Packer) -> None:
    packed = pack(_MESSAGE * 100)
    for torn in (packed[:-9], packed[:2], packed[:2] + b"\xff" * 50):
        assert decompress_if_short(torn) == torn
        assert await decompress(torn, SHORT_BYTES) == torn
    for raw in (b"", b"\x1f", b"x", b"xy", _MESSAGE):
        assert not is_compressed(raw)
        assert decompress_if_short(raw) == raw
        assert await decompress(raw, SHORT_BYTES) == raw


def test_no_request_begins_like_a_compressed_one() -> None:
    """gzip begins with 0x1f, that is wire type 7, which does not exist; zlib with 0x78, a number in field 15."""
    assert len(METHODS) > 100
    for method in METHODS:
        field = method.input_type.fields_by_number.get(15)
        assert field is None or field.message_type is not None or field.cpp_type == field.CPPTYPE_STRING, (
            method.full_name
        )
