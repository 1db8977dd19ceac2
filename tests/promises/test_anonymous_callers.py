"""Anonymous callers cannot fill the log.

Their refusals are recorded singly while they are few, and summed beyond.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pilothouse_server.rpc.interceptors.audit import AuditLayer
from pilothouse_server.rpc.refusals import Bounds, Refusals
from tests.conftest import Database, connection, number_changes
from tests.promises.calling import Caller
from tests.promises.environment import Environment, quiet_environment

CALLS = 40


async def refuse_strangers(environment: Environment) -> None:
    """Makes calls without a token, and logins that fail.

    The logins name an existing account and invented ones.
    """
    get, login, watch = (
        environment.rule("GetContainer"),
        environment.rule("Login"),
        environment.rule("WatchContainers"),
    )
    for rule in (get, watch):
        outcomes = await asyncio.gather(*(environment.stranger.invoke(rule, b"") for _ in range(CALLS)))
        assert {outcome.code for outcome in outcomes} == {"UNAUTHENTICATED"}
    for name in ("ADMIN", "hunter2-canary", *(f"invented{number}" for number in range(CALLS - 2))):
        outcome = await environment.call(
            "Login", {"username": name, "password": "wrong"}, environment.stranger
        )
        assert outcome.code == "UNAUTHENTICATED"
    assert login.public
    complete = environment.rule("CompleteLogin")
    for _ in range(CALLS):
        assert (
            await environment.stranger.invoke(complete, environment.request(complete))
        ).code == "UNAUTHENTICATED"


async def told(dsn: str) -> dict[str, tuple[int, int, list[Any]]]:
    """Returns the single refusals, summed refusals, and names, by method."""
    async with connection(dsn) as sql:
        await number_changes(sql)
        rows = await sql.fetch(
            "SELECT request_path, count(*) FILTER (WHERE metadata ->> 'summed' IS NULL) AS singly, "
            "coalesce(sum((metadata ->> 'summed')::int), 0) AS summed, "
            "array_agg(metadata ->> 'names') FILTER (WHERE metadata ? 'names') AS names "
            "FROM operation_logs WHERE error_code = 'UNAUTHENTICATED' GROUP BY request_path"
        )
    return {
        row["request_path"].rpartition("/")[2]: (row["singly"], row["summed"], list(row["names"] or []))
        for row in rows
    }


@pytest.mark.full
async def test_summed_refusals_are_written_when_the_server_ends(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_kind = Bounds().of_a_kind
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        await refuse_strangers(environment)
        before = await told(database.admin_dsn)
        assert {method: found[:2] for method, found in before.items()} == dict.fromkeys(
            ("GetContainer", "WatchContainers", "Login", "CompleteLogin"), (of_a_kind, 0)
        )
    after = await told(database.admin_dsn)
    assert {method: found[:2] for method, found in after.items()} == dict.fromkeys(
        ("GetContainer", "WatchContainers", "Login", "CompleteLogin"), (of_a_kind, CALLS - of_a_kind)
    )
    (names,) = after["Login"][2]
    assert "admin" in names
    assert names.count("[unknown name") == 9
    async with connection(database.admin_dsn) as sql:
        everything = await sql.fetchval("SELECT string_agg(log::text, '') FROM operation_logs AS log")
    assert "hunter2" not in everything
    assert "invented7" not in everything


async def _no_request_until(over: asyncio.Event) -> AsyncIterator[bytes]:
    """Yields no request of a stream until the call is over.

    The client reports INTERNAL if it writes a request at the moment at which the call ends.
    """
    await over.wait()
    if not over.is_set():
        yield b""


async def test_calls_of_unknown_methods_leave_records_that_are_summed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_kind = Bounds().of_a_kind
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        for number in range(CALLS):
            shape = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")[number % 4]
            method = getattr(environment.stranger.channel, shape)(
                f"/pilothouse.container.v1.ContainerService/No{number}"
            )
            over = asyncio.Event()
            answer = method(_no_request_until(over) if shape.startswith("stream") else b"")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (answer if shape.endswith("unary") else anext(aiter(answer)))
            over.set()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    async with connection(database.admin_dsn) as sql:
        await number_changes(sql)
        rows = await sql.fetch(
            "SELECT request_path, client_ip, metadata ->> 'summed' AS summed, metadata ->> 'names' AS names "
            "FROM operation_logs WHERE error_code = 'UNIMPLEMENTED' ORDER BY sequence"
        )
    single, (summed,) = rows[:of_a_kind], rows[of_a_kind:]
    assert [row["request_path"] for row in single] == [
        f"/pilothouse.container.v1.ContainerService/No{number}" for number in range(of_a_kind)
    ]
    assert {row["client_ip"] for row in rows} == {"127.0.0.1"}
    assert (summed["request_path"], int(summed["summed"])) == ("unknown", CALLS - of_a_kind)
    assert "ContainerService/No7" in summed["names"]


@pytest.mark.full
async def test_refusals_that_are_all_recorded_singly_are_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the bound, all refusals are recorded singly."""
    monkeypatch.setattr(Refusals, "singly", lambda *_arguments: True)
    await refuse_strangers(environment)
    found = await told(environment.server.database.admin_dsn)
    assert found["GetContainer"][:2] == (CALLS, 0)


@pytest.mark.full
async def test_missing_sums_at_the_end_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the last sums, the count is lost."""
    monkeypatch.setattr(AuditLayer, "flush", lambda _self: None)
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        await refuse_strangers(environment)
    assert (await told(database.admin_dsn))["GetContainer"][1] == 0


async def headers_of(environment: Environment, headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers in the record of an administrator's call."""
    caller = Caller(environment.admin.channel)
    caller.metadata = (*environment.admin.metadata, *headers.items())
    outcome = await caller.invoke(environment.rule("CreateUser"), b"")
    assert outcome.code == "INVALID_ARGUMENT"
    async with environment.sql() as sql:
        found = await sql.fetchval(
            "SELECT request_headers FROM operation_logs WHERE operation_id = $1::text::uuid",
            outcome.trailing["pilothouse-operation-id"],
        )
    kept: dict[str, str] = json.loads(found)
    return kept


async def test_records_contain_few_headers(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = {
        "x-session-id": "canary-1",
        "x-amzn-oidc-data": "canary-2",
        "x-team": "blue",
        "traceparent": "00-1",
    }
    async with quiet_environment(database, tmp_path, monkeypatch, audit_headers="x-team") as environment:
        kept = await headers_of(environment, sent)
    assert kept.keys() - {"grpc-timeout", "grpc-accept-encoding", "content-type"} == {
        "user-agent",
        "traceparent",
        "x-team",
    }
    assert "canary" not in str(kept)


async def test_records_of_one_minute_are_small(environment: Environment) -> None:
    """Makes large calls without a token; their records must be small."""
    stranger = Caller(environment.admin.channel)
    stranger.metadata = tuple((f"grpc-filler-{number}", "x" * 900) for number in range(8))
    login = environment.rule("Login")
    for _ in range(3):
        await stranger.invoke(environment.rule("GetContainer"), b"")
        await stranger.invoke(login, login.request_class(username="u" * 200, password="p" * 5000))
    async with environment.sql() as sql:
        largest = await sql.fetchval(
            "SELECT max(pg_column_size(log.*)) FROM operation_logs AS log WHERE user_id IS NULL"
        )
        longest = await sql.fetchval(
            "SELECT max(length(log::text)) FROM operation_logs AS log WHERE user_id IS NULL"
        )
    assert largest < 5000
    assert longest < 5000
