"""Requests with very many fields are detected before they are parsed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from pilothouse.container.v1 import container_pb2
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse_server.rpc import field_count, validation
from pilothouse_server.rpc.field_count import MOST_FIELDS, SHORT_BYTES, Malformed, too_many_fields
from pilothouse_server.runtime.event_loop import Share

REQUEST: Any = container_pb2.CreateContainerRequest.DESCRIPTOR
MANY = MOST_FIELDS + 5_000


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes((*out, number))


def held(number: int, body: bytes) -> bytes:
    """Returns a field that contains a message."""
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def numbers_of(*path: str) -> list[int]:
    """Returns the number of a field of the request, preceded by those of the fields that contain it."""
    descriptor, found = REQUEST, []
    for name in path:
        field = descriptor.fields_by_name[name]
        found.append(field.number)
        descriptor = field.message_type
    return found


def repeated(count: int, *path: str, item: bytes = b"") -> bytes:
    """Returns the request with `count` items at a path."""
    *around, last = numbers_of(*path)
    body = held(last, item) * count
    for number in reversed(around):
        body = held(number, body)
    return body


@pytest.mark.parametrize(
    "raw",
    [
        repeated(MANY, "container", "env"),
        repeated(MANY, "container", "init_containers", "env"),
        repeated(MANY, "container", "sidecars", "ports"),
        repeated(MANY, "container", "labels"),
        repeated(MANY, "container", "args", item=b"x"),
        repeated(MANY, "container"),
        # Unknown field numbers, which a message keeps.
        b"\xfa\xff\x0f\x00" * MANY,
        b"\xf8\xff\x0f\x00" * 8 * MANY,
        b"\xfd\xff\x0f\x00\x00\x00\x00" * 8 * MANY,
    ],
)
async def test_very_many_fields_are_detected_at_any_path(raw: bytes) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert await too_many_fields(raw, REQUEST)
    task.cancel()
    # The other task ran in between.
    assert turns > 10


async def test_the_largest_requests_that_are_allowed_pass() -> None:
    usage = metrics_pb2.RecordUsageRequest()
    for number in range(5_000):
        sample: Any = usage.samples.add(namespace="demo", container=f"web-{number}")
        for field in sample.DESCRIPTOR.fields:
            if field.message_type is None and not getattr(sample, field.name):
                setattr(sample, field.name, "x" if field.cpp_type == field.CPPTYPE_STRING else 7)
        sample.timestamp.GetCurrentTime()
    raw = usage.SerializeToString()
    assert len(raw) > SHORT_BYTES
    assert not await too_many_fields(raw, metrics_pb2.RecordUsageRequest.DESCRIPTOR)
    wide = container_pb2.CreateContainerRequest()
    programs: list[Any] = [wide.container]
    programs += [wide.container.sidecars.add(name=f"sidecar-{n}", image="nginx:1.27") for n in range(8)]
    programs += [wide.container.init_containers.add(name=f"init-{n}", image="nginx:1.27") for n in range(16)]
    for program in programs:
        program.command.extend(["x"] * 256)
        program.args.extend(["x"] * 256)
        for each in range(512):
            program.env.add(name=f"VARIABLE_{each}", source_name="settings", source_key=f"key-{each}")
    assert not await too_many_fields(wide.SerializeToString(), REQUEST)


@pytest.mark.parametrize(
    "rest",
    [
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        held(numbers_of("container")[0], b"\x0a\x05x"),
        b"\x0a\x05x",
        b"\x0f",
        b"\x09\x00",
    ],
)
async def test_malformed_messages_are_refused_as_by_the_parser(rest: bytes) -> None:
    raw = repeated(SHORT_BYTES // 2, "container", "env") + rest
    with pytest.raises(Malformed):
        await too_many_fields(raw, REQUEST)
    with pytest.raises(DecodeError):
        container_pb2.CreateContainerRequest.FromString(raw)


async def test_a_group_is_refused_although_the_parser_would_skip_it() -> None:
    """No message of the product has a group, and a group need not end where a length says."""
    raw = repeated(SHORT_BYTES // 2, "container", "env") + b"\xfb\xff\x0f\xfc\xff\x0f"
    container_pb2.CreateContainerRequest.FromString(raw)
    with pytest.raises(Malformed):
        await too_many_fields(raw, REQUEST)


async def test_a_short_body_is_not_checked() -> None:
    assert not await too_many_fields(b"\x0b" * SHORT_BYTES, REQUEST)


@pytest.mark.parametrize(("length", "last"), [(10_000, False), (70_000, True)])
async def test_the_processing_of_a_large_request_runs_last(
    monkeypatch: pytest.MonkeyPatch, length: int, last: bool
) -> None:
    gone_last: list[bool] = []

    class Noting(Share):
        def __init__(self, *, last: bool = False) -> None:
            super().__init__(last=last)
            gone_last.append(last)

    monkeypatch.setattr(field_count, "Share", Noting)
    monkeypatch.setattr(validation, "Share", Noting)
    request = container_pb2.CreateContainerRequest(namespace="n")
    request.container.name, request.container.image = "web", "nginx"
    request.container.args.extend(["x" * 1000] * (length // 1000))
    assert validation.is_long(request)
    assert validation.goes_last(request) is last
    assert not await too_many_fields(request.SerializeToString(), REQUEST)
    await validation.validate_in_steps(request)
    # The fields of a short request are not counted.
    assert gone_last == ([True, True] if last else [False])
