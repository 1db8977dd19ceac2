"""Promise 1 for calls that change nothing: they are recorded too.

These are refused, failed, cancelled and streaming calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from pilothouse_server.errors import Unauthenticated
from pilothouse_server.rpc import interceptors
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.interceptors import standard_layers
from pilothouse_server.rpc.interceptors.audit import AuditLayer
from pilothouse_server.rpc.interceptors.authorization import AuthorizationLayer
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import Layer, Pipeline, _parse
from tests.promises.calling import OPERATION_KEY, Caller, Outcome
from tests.promises.environment import Environment
from tests.promises.environment_fixtures import EnvironmentTemplate
from tests.promises.requests import OWN, request_for
from tests.waiting import poll_until

GARBAGE = b"\xff\xff\xff\xff"


async def record_of(environment: Environment, operation_id: str) -> asyncpg.Record | None:
    """Returns the record of an operation."""
    async with environment.sql() as sql:
        found: asyncpg.Record | None = await sql.fetchrow(
            "SELECT * FROM operation_logs WHERE operation_id = $1::text::uuid", operation_id
        )
        return found


def faults_of(record: asyncpg.Record | None, code: str, method: str, what: str) -> list[str]:
    """Returns the facts that a record of a refused call lacks."""
    if record is None:
        return [f"{what}: no record"]
    return [
        f"{what}: {name} is {record[name]!r}"
        for name, good in {
            "error_code": record["error_code"] == code,
            "status_code": record["status_code"] >= 400,
            "request_path": record["request_path"] == method,
            "duration_ms": record["duration_ms"] is not None and record["duration_ms"] >= 0,
            "client_ip": record["client_ip"] == "127.0.0.1",
            "user_agent": bool(record["user_agent"]) and "grpc" in record["user_agent"],
            "completed_at": record["completed_at"] is not None,
        }.items()
        if not good
    ]


async def unrecorded_refusals(environment: Environment) -> list[str]:
    """Refuses calls in every possible way; returns those without a proper record."""
    nobody = await environment.make_user(f"nobody-{uuid4().hex[:8]}")
    create, get = environment.rule("CreateContainer"), environment.rule("GetContainer")
    tried: dict[str, tuple[str, Any, Outcome]] = {}

    async def refuse(what: str, code: str, caller: Any, rule: Any, request: Any) -> None:
        tried[what] = (code, rule, await caller.invoke(rule, request))

    for rule in (create, get):
        request = environment.request(rule)
        await refuse(f"unauthenticated {rule.name}", "UNAUTHENTICATED", environment.stranger, rule, request)
        await refuse(f"unreachable {rule.name}", "NOT_FOUND", nobody, rule, request)
        await refuse(f"malformed {rule.name}", "INVALID_ARGUMENT", environment.admin, rule, GARBAGE)
        bad = request_for(rule, {"namespace": "No Name"})
        await refuse(f"invalid {rule.name}", "INVALID_ARGUMENT", environment.admin, rule, bad)
    await refuse("denied", "PERMISSION_DENIED", nobody, environment.rule("CreateUser"), b"")
    missing = request_for(get, {"namespace": OWN, "name": "nothing"})
    await refuse("failed", "NOT_FOUND", environment.admin, get, missing)
    watch = environment.rule("WatchContainers")
    await refuse("stream", "NOT_FOUND", nobody, watch, environment.request(watch))
    wrong = request_for(environment.rule("Login"), {"username": "admin", "password": "a wrong password"})
    await refuse("log-in", "UNAUTHENTICATED", environment.stranger, environment.rule("Login"), wrong)

    faults: list[str] = []
    for what, (code, rule, outcome) in tried.items():
        if outcome.code != code:
            faults.append(f"{what} answered {outcome.code} {outcome.message}")
        operation_id = str(outcome.trailing.get(OPERATION_KEY, uuid4()))
        if rule.streams:
            continue
        faults += faults_of(await record_of(environment, operation_id), code, rule.method, what)
    return faults


async def test_refused_and_failed_calls_are_recorded(environment: Environment) -> None:
    assert await unrecorded_refusals(environment) == []


@pytest.mark.full
async def test_refusals_that_are_not_recorded_are_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(_self: AuditLayer, _call: object, _error: BaseException) -> None:
        return

    monkeypatch.setattr(AuditLayer, "_record_failure", forget)
    assert len(await unrecorded_refusals(environment)) >= 9


async def test_a_cancelled_mutation_is_recorded_and_changes_nothing(environment: Environment) -> None:
    rule = environment.rule("UpdateNamespace")
    async with environment.sql() as sql:
        async with sql.transaction():
            await sql.execute("SELECT FROM namespaces WHERE name = $1 FOR UPDATE", OWN)
            call = environment.admin.open(rule, environment.request(rule).SerializeToString())

            async def waits() -> bool:
                async with environment.sql() as looking:
                    return bool(
                        await looking.fetchval(
                            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                        )
                    )

            await poll_until(waits)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        async def recorded() -> Mapping[str, Any] | None:
            found: Mapping[str, Any] | None = await sql.fetchrow(
                "SELECT * FROM operation_logs WHERE request_path = $1", rule.method
            )
            return found

        record = await poll_until(recorded)
        assert record is not None
        assert (record["error_code"], record["status_code"]) == ("CANCELLED", 499)
        assert record["username"] == "admin"
        assert record["duration_ms"] >= 0
        assert await sql.fetchval("SELECT description FROM namespaces WHERE name = $1", OWN) is None


async def test_a_stream_that_opens_has_two_records(environment: Environment) -> None:
    streams = [rule for rule in environment.rules.values() if rule.shape == "unary_stream"]
    assert streams
    for rule in streams:
        await environment.admin.invoke(rule, environment.request(rule))
    nobody = await environment.make_user("nobody")
    denied = environment.rule("WatchContainers")
    outcome = await nobody.invoke(denied, environment.request(denied))
    assert outcome.code == "NOT_FOUND"

    async def complete() -> bool:
        async with environment.sql() as sql:
            rows = await sql.fetch(
                "SELECT request_path, stream_id, array_agg(metadata ->> 'stream_event' ORDER BY sequence) "
                "AS said, "
                "array_agg(error_code ORDER BY sequence) AS codes FROM operation_logs "
                "WHERE request_method = 'STREAM' GROUP BY request_path, stream_id"
            )
        found = {row["request_path"] for row in rows if row["said"] == ["opened", "closed"]}
        codes = [row["codes"][-1] for row in rows if row["request_path"] == denied.method]
        return found == {rule.method for rule in streams} and sorted(map(str, codes)) == [
            "CANCELLED",
            "NOT_FOUND",
        ]

    await poll_until(complete)


async def out_of_order(environment: Environment) -> list[str]:
    """Returns the RPCs whose layers are out of order, judged by the first refusal.

    The environment must have a target for every mutation.
    """
    nobody = await environment.make_user("nobody")
    found = []

    async def refuse(rule: Rule, caller: Caller, body: bytes, code: str, reason: str) -> None:
        outcome = await caller.invoke(rule, body)
        if (outcome.code, outcome.reason) != (code, reason):
            found.append(f"{rule.shape} {rule.name}: {outcome.code} {outcome.reason}, not {code} {reason}")

    for rule in environment.rules.values():
        if not rule.public:
            # Authentication comes before parsing.
            await refuse(rule, environment.stranger, GARBAGE, "UNAUTHENTICATED", "NO_TOKEN")
        if rule.shape.startswith("unary"):
            await refuse(rule, environment.admin, GARBAGE, "INVALID_ARGUMENT", "MALFORMED_MESSAGE")
            # Authorization comes before validation: few of these RPCs accept an empty request, and this caller
            # may call none of them.
            if rule.permission and not rule.namespace_of(environment.request(rule)):
                await refuse(rule, nobody, b"", "PERMISSION_DENIED", "PERMISSION_DENIED")
    return found


@pytest.mark.full
async def test_layers_run_in_the_same_order_for_every_shape(full_environment: Environment) -> None:
    assert await out_of_order(full_environment) == []


def validation_first(audit: AuditLayer, authorization: AuthorizationLayer) -> tuple[Layer, ...]:
    *others, authorized, validated, replay = standard_layers(audit, authorization)
    return (*others, validated, authorized, replay)


@pytest.mark.full
async def test_validation_before_authorization_is_found(
    environment_fixtures: EnvironmentTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await environment_fixtures.newest()
    monkeypatch.setattr(interceptors, "standard_layers", validation_first)
    async with environment_fixtures.environment(tmp_path / "server", monkeypatch) as environment:
        found = await out_of_order(environment)
    assert len([each for each in found if "INVALID_ARGUMENT" in each and "not PERMISSION_DENIED" in each]) > 5


@pytest.mark.full
async def test_a_body_that_is_read_before_authentication_is_found(
    full_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in = Pipeline._let_in

    async def reading(self: Pipeline, call: Call, reservation: Any, requests: Any, context: Any) -> None:
        try:
            await let_in(self, call, reservation, requests, context)
        except Unauthenticated:
            if call.rule.shape.startswith("unary"):
                await _parse(call, await context.read())
                if call.parse_error is not None:
                    raise call.parse_error from None
            raise

    monkeypatch.setattr(Pipeline, "_let_in", reading)
    found = await out_of_order(full_environment)
    for shape in ("unary_unary", "unary_stream"):
        assert [each for each in found if each.startswith(shape) and "not UNAUTHENTICATED" in each]


async def test_a_change_of_a_user_does_not_deadlock_with_the_users_records(environment: Environment) -> None:
    somebody = await environment.make_user("somebody", {OWN: "viewer"})
    async with environment.sql() as sql:
        for number in range(15):
            fields = {
                "username": "somebody",
                "user": {"fullName": f"Name {number}"},
                "updateMask": "fullName",
            }
            await asyncio.gather(
                environment.call("UpdateUser", fields),
                *(environment.call("CreateRole", {"role": {"name": "x"}}, somebody) for _ in range(10)),
            )
            deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert await sql.fetchval(deadlocks) == 0
    assert environment.server.application.audit_writer.lost == 0
