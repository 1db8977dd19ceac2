"""Requests that are packed are unpacked by us, and no further than they may be long."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest

from pilothouse.audit.v1 import audit_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.rpc import packing
from pilothouse_server.rpc.packing import is_packed, unpacked, unpacked_if_short
from pilothouse_server.rpc.parts import SHORT_BYTES
from pilothouse_server.runtime.event_loop import Share

_FILES = (audit_pb2, config_pb2, container_pb2, identity_pb2, metrics_pb2, namespace_pb2, storage_pb2)
_MESSAGE = b"\x0a\x05noisy\x12\x03web"
_NOISE = random.Random(10).randbytes(300_000)
_MEBIBYTE = 1024 * 1024
_every_packer = pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
_Packer = Callable[[bytes], bytes]


@_every_packer
@pytest.mark.parametrize("raw", [b"", _MESSAGE, b"x" * SHORT_BYTES], ids=["empty", "small", "short"])
async def test_what_is_short_is_unpacked_at_once(pack: _Packer, raw: bytes) -> None:
    packed = pack(raw)
    assert is_packed(packed)
    assert unpacked_if_short(packed) == raw
    assert await unpacked(packed, SHORT_BYTES) == raw


@_every_packer
async def test_what_is_longer_is_unpacked_as_far_as_it_may_be_long(pack: _Packer) -> None:
    for raw in (b"x" * (SHORT_BYTES + 1), b"x" * _MEBIBYTE, _NOISE):
        packed = pack(raw)
        assert unpacked_if_short(packed) == packed
        assert await unpacked(packed, len(raw)) == raw
        for most in (len(raw) - 1, SHORT_BYTES - 7, 1, 0):
            assert await unpacked(packed, most) == raw[: most + 1]


@_every_packer
async def test_it_is_unpacked_in_steps_between_which_others_have_their_turn(
    pack: _Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    class Counting(Share):
        async def used(self) -> None:
            nonlocal steps
            steps += 1
            await super().used()

    monkeypatch.setattr(packing, "Share", Counting)
    assert await unpacked(pack(b"x" * 4 * _MEBIBYTE), 4 * _MEBIBYTE) == b"x" * 4 * _MEBIBYTE
    assert steps >= 4 * _MEBIBYTE // SHORT_BYTES


@_every_packer
async def test_what_cannot_be_unpacked_stays_as_it_is(pack: _Packer) -> None:
    packed = pack(_MESSAGE * 100)
    for torn in (packed[:-9], packed[:2], packed[:2] + b"\xff" * 50):
        assert unpacked_if_short(torn) == torn
        assert await unpacked(torn, SHORT_BYTES) == torn
    for raw in (b"", b"\x1f", b"x", b"xy", _MESSAGE):
        assert not is_packed(raw)
        assert unpacked_if_short(raw) == raw
        assert await unpacked(raw, SHORT_BYTES) == raw


def test_no_request_begins_as_what_is_packed_does() -> None:
    """0x1f says wire type 7, which there is not, and 0x78 a number in field 15."""
    methods = [
        method
        for file in _FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    assert len(methods) > 100
    for method in methods:
        field = method.input_type.fields_by_number.get(15)
        assert field is None or field.message_type is not None or field.cpp_type == field.CPPTYPE_STRING, (
            method.full_name
        )
