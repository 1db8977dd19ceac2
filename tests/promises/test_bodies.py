"""Requests that are not accepted: too long, or too long once decompressed.

Each such call has its record.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.rpc import receiving
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.field_checks import descriptor_of
from pilothouse_server.rpc.interceptors.audit import AuditLayer
from pilothouse_server.rpc.longest import LEAST_BYTES
from pilothouse_server.rpc.method_rules import Rule
from tests.conftest import Database, new_database
from tests.promises.calling import OPERATION_KEY, Caller, token_of
from tests.promises.environment import Environment, quiet_environment
from tests.promises.hostile import wire
from tests.promises.hostile.wire import frame
from tests.promises.requests import request_for
from tests.waiting import patient, poll_until

MOST = 64 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tight(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    """Yields an environment that limits requests to 64 KiB, for this file."""
    folder = tmp_path_factory.mktemp("tight")
    with pytest.MonkeyPatch.context() as patching:
        async with (
            new_database(postgres, template_database.name) as database,
            quiet_environment(database, folder, patching, max_message_bytes=MOST) as made,
        ):
            yield made


@pytest_asyncio.fixture(loop_scope="session")
async def since(tight: Environment) -> int:
    """Returns the sequence number of the last record before this test."""
    async with tight.sql() as sql:
        return int(await sql.fetchval("SELECT audit_sequence FROM stream_head"))


def too_long(size: int) -> bytes:
    """Returns a body of `size` bytes, which every message parses as an unknown field."""
    return (
        b"\xfa\xff\xff\xff\x0f"
        + _varint(size - 5 - len(_varint(size)))
        + b"x" * (size - 5 - len(_varint(size)))
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes((*out, number))


async def unrecorded_bodies(environment: Environment, rules: Iterable[Rule]) -> list[str]:
    """Sends methods a body slightly too long; returns the faults.

    Each call must be refused and recorded.
    """
    found = []
    body = too_long(MOST + 1)
    outcomes = [
        (rule, await environment.admin.invoke(rule, body)) for rule in rules if rule.shape.startswith("unary")
    ]
    async with environment.sql() as sql:
        records = {
            str(record["operation_id"]): record
            for record in await sql.fetch("SELECT * FROM operation_logs WHERE completed_at IS NOT NULL")
        }
    for rule, outcome in outcomes:
        if (outcome.code, outcome.reason) != ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"):
            found.append(f"{rule.name}: {outcome.code} {outcome.reason}")
        record = records.get(str(outcome.trailing.get(OPERATION_KEY)))
        if (
            record is None
            or record["request_path"] != rule.method
            or record["error_code"] != "RESOURCE_EXHAUSTED"
        ):
            found.append(f"{rule.name}: no record")
        elif not rule.public and record["username"] != "admin":
            found.append(f"{rule.name}: recorded without its caller")
    return found


@pytest.mark.full
async def test_a_body_above_the_limit_is_refused_and_recorded_for_every_method(tight: Environment) -> None:
    assert await unrecorded_bodies(tight, tight.rules.values()) == []
    get = tight.rule("GetContainer")
    assert (await tight.admin.invoke(get, too_long(MOST))).code == "INVALID_ARGUMENT"


@pytest.mark.full
async def test_a_body_that_is_taken_or_refused_without_a_record_is_found(
    tight: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: an oversized body is accepted, or leaves no record.

    It left no record when gRPC refused it.
    """

    async def forget(_self: AuditLayer, _call: Call, _error: BaseException) -> None:
        return

    monkeypatch.setattr(AuditLayer, "_record_failure", forget)
    rules = [tight.rule(name) for name in ("GetContainer", "ListOperations")]
    assert "GetContainer: no record" in await unrecorded_bodies(tight, rules)
    monkeypatch.setattr(receiving, "parsed", lambda rule, raw: rule.request_class.FromString(raw))
    assert "ListOperations: OK " in await unrecorded_bodies(tight, rules)


async def test_what_no_field_may_hold_is_refused_by_its_bytes(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends names longer than any field may be.

    The requests are refused before they are parsed.
    """
    made: list[str] = []
    parsed = receiving.parsed

    def noting(rule: Rule, raw: bytes) -> Message:
        found = parsed(rule, raw)
        made.append(rule.name)
        return found

    monkeypatch.setattr(receiving, "parsed", noting)
    name = "n" * LEAST_BYTES
    for method in ("GetContainer", "DeleteContainer", "ListPods", "CheckPermission", "StreamLogs"):
        rule = environment.rule(method)
        fields = descriptor_of(rule.request_class).fields_by_name
        field = next(each for each in ("permission", "name", "namespace") if each in fields)
        outcome = await environment.admin.invoke(rule, rule.request_class(**{field: name}))
        assert (outcome.code, outcome.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"), method
        assert f"at most {LEAST_BYTES}" in outcome.message
    assert made == []
    # If the name is a little shorter, the field is named. Methods whose fields may be longer do not have this
    # limit.
    for method, request in (
        ("GetContainer", {"namespace": "own", "name": name[:-100]}),
        ("CreateContainer", {"namespace": "own", "container": {"name": name, "image": "nginx:1.27"}}),
    ):
        outcome = await environment.admin.invoke(
            environment.rule(method), request_for(environment.rule(method), request)
        )
        assert (outcome.code, outcome.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD"), method
    assert made == ["GetContainer", "CreateContainer"]


async def test_a_very_long_name_is_refused_and_its_request_is_not_recorded(environment: Environment) -> None:
    """Sends names as long as a request, in several fields.

    The record does not contain the request, because the request is refused as one that cannot be read.
    """
    name = "\N{GRINNING FACE}" * 100_000
    for method, field, fields in (
        ("CreateContainer", "namespace", {"namespace": name}),
        ("CreateContainer", "container.name", {"namespace": "own", "container": {"name": name}}),
        ("UpdateConfigMap", "name", {"namespace": "own", "name": name}),
        ("Exec", "start.namespace", {"start": {"namespace": name}}),
    ):
        rule = environment.rule(method)
        outcome = await environment.admin.invoke(rule, request_for(rule, fields))
        assert (outcome.code, outcome.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD"), method
        assert outcome.message == f"{field}: must not be longer than 1024 characters"
        async with environment.sql() as sql:
            record = await sql.fetchrow(
                "SELECT * FROM operation_logs WHERE operation_id = $1::text::uuid AND completed_at IS NOT NULL",
                outcome.trailing[OPERATION_KEY],
            )
        assert record is not None
        assert record["request_body"] is None


async def the_record_of(environment: Environment, rule: Rule, since: int) -> asyncpg.Record:
    """Returns the record of the end of a method's one call, once it exists.

    The record is after the record `since`.
    """

    async def records() -> list[asyncpg.Record]:
        async with environment.sql() as sql:
            return list(
                await sql.fetch(
                    "SELECT * FROM operation_logs"
                    " WHERE request_path = $1 AND sequence > $2 AND completed_at IS NOT NULL",
                    rule.method,
                    since,
                )
            )

    (record,) = await poll_until(records)
    return record


async def test_calls_that_grpc_refuses_are_recorded_with_the_callers_code(
    tight: Environment, since: int
) -> None:
    """Tries calls of each kind.

    They are of a user or an anonymous caller, with one or many requests and responses.
    """
    body = too_long(MOST + receiving.TRANSPORT_MARGIN_BYTES + 1)
    for name in (
        "GetContainer",
        "CreateContainer",
        "WatchContainers",
        "Exec",
        "RecordUsage",
        "RefreshSession",
    ):
        rule = tight.rule(name)
        outcome = await tight.admin.invoke(rule, body)
        assert (outcome.code, outcome.reason) == ("RESOURCE_EXHAUSTED", ""), name
        record = await the_record_of(tight, rule, since)
        assert (record["error_code"], record["status_code"]) == ("RESOURCE_EXHAUSTED", 429), name
        assert record["username"] == (None if rule.public else "admin")


async def test_a_later_request_that_grpc_refuses_is_recorded(tight: Environment, since: int) -> None:
    """Sends an oversized request after a valid one.

    The oversized request is not mistaken for the end of the client's stream.
    """
    rule = tight.rule("RecordUsage")

    call = getattr(tight.admin.channel, rule.shape)(rule.method)(metadata=tight.admin.metadata)
    await call.write(rule.request_class().SerializeToString())
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(too_long(MOST + receiving.TRANSPORT_MARGIN_BYTES + 1))
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await the_record_of(tight, rule, since))["error_code"] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(wire.DATA, 0, 1, wire.message(b"x", length=100)), "DEADLINE_EXCEEDED"),
        (
            frame(wire.DATA, 0, 1, wire.message(b"x", length=100))
            + frame(wire.RST_STREAM, 0, 1, wire.CANCEL),
            "CANCELLED",
        ),
        (frame(wire.DATA, wire.END_STREAM, 1), "INVALID_ARGUMENT"),
        (frame(wire.DATA, wire.END_STREAM, 1, wire.message(b"x", length=100)), "INVALID_ARGUMENT"),
    ],
    ids=["late", "cancelled", "none", "torn"],
)
async def test_an_incomplete_request_is_recorded_with_the_code_of_its_call(
    tight: Environment, since: int, sent: bytes, code: str
) -> None:
    rule = tight.rule("GetContainer")
    # The token belongs to a session that no other test has used.
    token = token_of(await tight.log_in("admin"))
    connection = wire.Connection(tight.server.address)
    await connection.open()
    try:
        assert connection.stream() == 1
        # The server must begin the call within this time.
        wait = [("grpc-timeout", f"{patient(0.3) * 1000:.0f}m")] if code == "DEADLINE_EXCEEDED" else []
        block = wire.header_block(rule.method, token, wait)
        connection.write(frame(wire.HEADERS, wire.END_HEADERS, 1, block))

        async def begun() -> bool:
            return tight.server.application.authenticator.known(token) is not None

        await poll_until(begun)
        connection.write(sent)
        record = await the_record_of(tight, rule, since)
    finally:
        connection.close()
    assert record["error_code"] == code
    assert record["username"] == "admin"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_request_is_limited_by_its_decompressed_size(
    tight: Environment, compression: grpc.Compression
) -> None:
    get = tight.rule("GetRole")
    async with grpc.aio.insecure_channel(tight.server.address, compression=compression) as channel:
        caller = Caller(channel)
        caller.metadata = tight.admin.metadata
        assert (await caller.invoke(get, request_for(get, {"name": "viewer"}))).code == "OK"
        outcome = await caller.invoke(get, too_long(MOST + 1))
        assert (outcome.code, outcome.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
        # A request that would become longer than gRPC's own limit is decompressed no further. The server
        # refuses it, and not gRPC.
        outcome = await caller.invoke(get, too_long(receiving.TRANSPORT_MARGIN_BYTES + 2 * MOST))
        assert (outcome.code, outcome.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
        assert f"has {MOST + 1} bytes" in outcome.message


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_infrastructure_services_read_compressed_requests(
    tight: Environment, compression: grpc.Compression
) -> None:
    async with grpc.aio.insecure_channel(tight.server.address, compression=compression) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="x" * 2_000))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest(service="x" * 2_000))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
        # The stub's type expects a blocking channel.
        plain: Any = channel
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(plain)
        stream = reflection.ServerReflectionInfo()
        for _ in range(2):
            await stream.write(reflection_pb2.ServerReflectionRequest(list_services="x" * 2_000))
            assert (await stream.read()).list_services_response.service
        await stream.done_writing()


@pytest.mark.parametrize(
    "torn", [b"\xff" * 9, gzip.compress(b"\x0a" + b"\xff" * 200_000)], ids=["torn", "packed"]
)
async def test_infrastructure_services_refuse_invalid_requests_with_our_message(
    tight: Environment, torn: bytes
) -> None:
    good = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    async with grpc.aio.insecure_channel(tight.server.address) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        converse: Any = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )

        async def all_of(*requests: bytes) -> int:
            return len([answer async for answer in converse(iter(requests))])

        for call in (check(torn), all_of(torn), all_of(good, torn)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "the request cannot be parsed as the message of this method"
