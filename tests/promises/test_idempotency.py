"""A mutation with a `request_id` happens once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.idempotency import IdempotencyKeeper
from pilothouse_server.store import idempotency_keys
from pilothouse_server.store.idempotency_keys import Look
from tests.conftest import Database
from tests.harness import PASSWORD, running_server
from tests.promises import requests
from tests.promises.calling import Caller, token_of
from tests.promises.environment import Environment, quiet_environment
from tests.promises.requests import OWN
from tests.promises.tables import RECORDS, contents
from tests.waiting import poll_until

# A replay writes its own record, so these tables change.
BESIDE = {*RECORDS}


def creation(name: str = "once", **fields: Any) -> requests.Fields:
    """Returns a request that creates a container, by default with a new id."""
    request = {"namespace": OWN, "requestId": str(uuid4()), "container": requests.workload(name)}
    return {**request, **fields}


async def changed_by_replays(environment: Environment) -> list[str]:
    """Makes every mutation that has a `request_id` twice.

    Returns the changes by the second call, and its responses that differ from the first.
    """
    faults: list[str] = []
    async with environment.sql() as sql:
        for rule in sorted(environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace"):
            if not (rule.mutates and rule.has_request_id):
                continue
            request = environment.request(rule)
            request.request_id = str(uuid4())
            first = await environment.caller_of(rule).invoke(rule, request)
            before = await contents(sql, BESIDE)
            made = "SELECT method FROM operations WHERE request_id = $1"
            if [row["method"] for row in await sql.fetch(made, UUID(request.request_id))] != [rule.method]:
                faults.append(f"{rule.name}: its operation does not have the request_id")
            second = await environment.caller_of(rule).invoke(rule, request)
            if (first.code, second.code) != ("OK", "OK"):
                faults.append(f"{rule.name}: {first.code}, {second.code} {second.message}")
                continue
            after = await contents(sql, BESIDE)
            faults += [
                f"{rule.name} changed {table} again" for table in before if after[table] != before[table]
            ]
            if redaction.strip_secrets(first.answer) != second.answer:
                faults.append(f"{rule.name} answered otherwise")
    return faults


async def test_a_replay_returns_the_response_and_changes_nothing(full_environment: Environment) -> None:
    assert await changed_by_replays(full_environment) == []


@pytest.mark.full
async def test_a_replay_that_is_executed_again_is_found(
    full_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_arguments: object) -> Look:
        return Look(None, ours=True)

    monkeypatch.setattr(idempotency_keys, "look", nothing)
    monkeypatch.setattr(idempotency_keys, "claim", nothing)
    monkeypatch.setattr(IdempotencyKeeper, "row", lambda *_arguments: None)
    assert "CreateContainer: OK, ALREADY_EXISTS" in " ".join(await changed_by_replays(full_environment))


async def test_another_body_or_method_under_the_same_id_is_refused(environment: Environment) -> None:
    first = creation()
    await environment.must("CreateContainer", first)
    for method, fields in (
        ("CreateContainer", creation("other", requestId=first["requestId"])),
        ("StopContainer", {"namespace": OWN, "name": "once", "requestId": first["requestId"]}),
    ):
        outcome = await environment.call(method, fields)
        assert (outcome.code, outcome.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    # Request ids are scoped by caller.
    other = await environment.make_user("other", {OWN: "developer"})
    await environment.must("CreateContainer", creation("theirs", requestId=first["requestId"]), other)


async def test_only_one_of_many_concurrent_requests_with_one_id_is_executed(environment: Environment) -> None:
    request = creation()
    outcomes = await asyncio.gather(*(environment.call("CreateContainer", request) for _ in range(10)))
    assert {outcome.code for outcome in outcomes} == {"OK"}
    assert len({outcome.answer.container.uid for outcome in outcomes}) == 1
    async with environment.sql() as sql:
        assert await sql.fetchval("SELECT count(*) FROM containers WHERE name = 'once'") == 1
        assert await sql.fetchval("SELECT count(*) FROM events WHERE resource_name = 'once'") == 1


async def test_failures_and_dry_runs_do_not_use_up_the_request_id(environment: Environment) -> None:
    missing = {"namespace": OWN, "name": "later", "requestId": str(uuid4())}
    assert (await environment.call("StopContainer", missing)).code == "NOT_FOUND"
    checked = creation("later")
    await environment.must("CreateContainer", {**checked, "validateOnly": True})
    await environment.must("CreateContainer", checked)
    await environment.must("StopContainer", missing)


async def test_a_caller_without_the_permission_gets_no_replay(environment: Environment) -> None:
    somebody = await environment.make_user("somebody", {OWN: "developer"})
    request = creation()
    await environment.must("CreateContainer", request, somebody)
    assert (await environment.call("CreateContainer", request, somebody)).code == "OK"
    await environment.must("RevokeRole", {"username": "somebody", "role": "developer", "namespace": OWN})

    async def ended() -> tuple[str, str | None]:
        outcome = await environment.call("CreateContainer", request, somebody)
        return outcome.code, outcome.reason

    # A server may use the old grants for a moment. The database then refuses the call.
    seen = await poll_until(ended, lambda each: each[0] not in ("OK", "ABORTED"), seconds=1.0)
    assert seen == ("NOT_FOUND", "NAMESPACE_NOT_FOUND")


async def test_a_replay_after_a_missed_revocation_is_aborted(environment: Environment) -> None:
    somebody = await environment.make_user("somebody", {OWN: "developer"})
    request = creation()
    await environment.must("CreateContainer", request, somebody)
    # The server continues to use the grants that it has read.
    environment.server.application.feed.on_grants_changed = lambda: None
    environment.server.application.authenticator._cache_seconds = 600.0
    environment.server.application.authenticator.invalidate()
    assert (await environment.call("CreateContainer", request, somebody)).code == "OK"
    await environment.must("RevokeRole", {"username": "somebody", "role": "developer", "namespace": OWN})
    outcome = await environment.call("CreateContainer", request, somebody)
    assert (outcome.code, outcome.reason) == ("ABORTED", "CONCURRENT_CHANGE")


async def test_no_secret_is_stored_for_replays(environment: Environment) -> None:
    request = {"user": requests.user("made"), "password": PASSWORD, "requestId": str(uuid4())}
    await environment.must("CreateUser", request)
    await environment.must("CreateUser", request)
    outcome = await environment.call("CreateUser", {**request, "password": "another password altogether"})
    assert outcome.reason == "REQUEST_ID_REUSED"
    async with environment.sql() as sql:
        kept = await sql.fetch("SELECT to_jsonb(k)::text AS row, response FROM idempotency_keys AS k")
    assert kept
    for row in kept:
        assert PASSWORD not in row["row"]
        assert PASSWORD.encode() not in row["response"]


async def test_a_replay_is_served_after_a_restart(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = creation()
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        first = await environment.must("CreateContainer", request)
        session = token_of(environment.admin)
    async with running_server(database, tmp_path, with_cluster=False) as server:
        again = Environment(server, environment.rules, Caller(server.channel(), session))
        assert await again.must("CreateContainer", request) == first
