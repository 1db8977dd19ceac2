"""The text of a failure always has a reason.

It never contains SQL, parts of a stack trace, or a password.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from google.rpc import error_details_pb2 as details

from pilothouse_server.containers import operations
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.promises.calling import Outcome
from tests.promises.environment import Environment
from tests.promises.requests import OWN, workload
from tests.promises.test_recorded_calls import GARBAGE
from tests.server_logs import logging_as_served
from tests.waiting import patient, poll_until

PASSWORD = "hunter2-and-more"
TELLTALE = re.compile(r"select |insert |asyncpg|sqlalchemy|traceback|\.py\b|" + PASSWORD, re.IGNORECASE)


def lacks(outcome: Outcome) -> list[str]:
    """Returns the missing parts of an error, and the forbidden ones."""
    info = outcome.detail(details.ErrorInfo)
    found = []
    if info is None or info.domain != "pilothouse" or not re.fullmatch(r"[A-Z][A-Z0-9_]+", info.reason):
        found.append("no ErrorInfo")
    if outcome.reason in ("INVALID_FIELD", "REQUIRED"):
        bad = outcome.detail(details.BadRequest)
        if bad is None or not all(item.field and item.description for item in bad.field_violations):
            found.append("no BadRequest")
    if outcome.code == "UNAVAILABLE" and outcome.detail(details.RetryInfo) is None:
        found.append("no RetryInfo")
    if TELLTALE.search(outcome.message) or any(TELLTALE.search(str(item.value)) for item in outcome.details):
        found.append(f"tells {outcome.message}")
    return found


async def poor_errors(environment: Environment) -> list[str]:
    """Makes every RPC fail in several ways; returns the incomplete errors."""
    nobody = await environment.make_user("nobody")
    faults = []
    for rule in environment.rules.values():
        for caller, request in (
            (environment.stranger, GARBAGE),
            (environment.admin, GARBAGE),
            (nobody, environment.request(rule)),
            (environment.admin, b""),
        ):
            if rule.name == "Logout" and caller is environment.admin:
                continue
            outcome = await caller.invoke(rule, request, timeout=patient(0.3 if rule.streams else 30.0))
            if outcome.code not in ("OK", "DEADLINE_EXCEEDED"):
                faults += [f"{rule.name} {outcome.code}: {lack}" for lack in lacks(outcome)]
    return faults


async def test_every_error_carries_its_reason(full_environment: Environment) -> None:
    assert await poor_errors(full_environment) == []


async def test_many_violations_fit_into_the_trailers(environment: Environment) -> None:
    env = [{"name": f"bad name {number} {'é' * 50}"} for number in range(500)]
    fields = {"namespace": OWN, "container": {**workload("web"), "env": env}}
    outcome = await environment.call("CreateContainer", fields)
    assert (outcome.code, lacks(outcome)) == ("INVALID_ARGUMENT", [])
    assert sum(len(detail.value) for detail in outcome.details) < 8000


def _fails_with(error: Exception) -> Any:
    async def fail(*_arguments: Any) -> None:
        raise error

    return fail


@pytest.fixture
def server_log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Yields the server's log in its own format, and restores the log set-up."""
    with logging_as_served("DEBUG", request.param) as written:
        yield written


@pytest.mark.parametrize("server_log", ["text", "json"], indirect=True)
async def test_an_unexpected_exception_leaks_nothing(
    environment: Environment, server_log: io.StringIO
) -> None:
    for error in (
        asyncpg.UndefinedColumnError(f"SELECT password FROM users WHERE x = {PASSWORD}"),
        RuntimeError(f"login with {PASSWORD} failed at /srv/app.py"),
        KeyError(PASSWORD),
    ):
        with pytest.MonkeyPatch.context() as patch:
            await _leaks_nothing(environment, patch, error)
    logged = server_log.getvalue()
    assert logged.count("call failed unexpectedly") == 9
    assert PASSWORD not in logged


async def _leaks_nothing(environment: Environment, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(operations, "locate", _fails_with(error))
    monkeypatch.setattr(operations, "draft_creation", _fails_with(error))
    for name, fields in (
        ("GetContainer", {"namespace": OWN, "name": "web"}),
        ("CreateContainer", {"namespace": OWN, "container": workload("web")}),
    ):
        outcome = await environment.call(name, fields)
        assert (outcome.code, outcome.reason, lacks(outcome)) == ("INTERNAL", "INTERNAL", [])
        info = outcome.detail(details.ErrorInfo)
        assert info is not None
        assert info.metadata["operation_id"] == outcome.trailing["pilothouse-operation-id"]
    # The caller is authenticated before any layer runs.
    monkeypatch.setattr(environment.server.application.authenticator, "authenticate", _fails_with(error))
    outcome = await environment.call("GetContainer", {"namespace": OWN, "name": "web"})
    assert (outcome.code, outcome.reason, lacks(outcome)) == ("INTERNAL", "INTERNAL", [])
    async with environment.sql() as sql:
        kept = await sql.fetchval("SELECT string_agg(o::text, '') FROM operation_logs AS o")
        assert PASSWORD not in kept


async def open_work(environment: Environment) -> list[str]:
    """Returns the server's connections in a transaction, by their last statement."""
    async with environment.sql() as sql:
        rows = await sql.fetch(
            "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name LIKE 'pilothouse-%' AND state <> 'idle'"
        )
    return [f"{row['state']}: {row['query'][:80]}" for row in rows]


def connections(environment: Environment) -> int:
    """Returns the number of connections that the server's pools have lent."""
    engines = environment.server.application.database
    return engines.app.lent + engines.system.lent


async def test_a_storm_of_cancellations_leaves_nothing_open(full_environment: Environment) -> None:
    environment = full_environment
    get, update, watch = (
        environment.rule(name) for name in ("GetContainer", "UpdateContainer", "WatchContainers")
    )
    for wave in range(8):
        calls = [
            environment.admin.open(rule, environment.request(rule).SerializeToString())
            for rule in (get, update, watch)
            for _ in range(15)
        ]
        tasks = [asyncio.ensure_future(anext(aiter(call)) if call in calls[30:] else call) for call in calls]
        # Each wave is cancelled at a later point of the calls.
        for _ in range(wave * 12):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await cancel_and_wait(*tasks)

    async def settled() -> bool:
        return not await open_work(environment) and connections(environment) == 0

    await poll_until(settled, seconds=10)
    await environment.must("GetContainer", {"namespace": OWN, "name": "web"})


@pytest.mark.full
async def test_a_connection_that_is_not_returned_is_found(environment: Environment) -> None:
    pool = environment.server.application.database.app
    kept = await pool.take()
    await kept.command("BEGIN; SELECT 1")
    assert connections(environment) >= 1
    assert any(item.startswith("idle in transaction") for item in await open_work(environment))
    pool.give(kept)
