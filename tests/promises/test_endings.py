"""Promises 5 and 10: revoked credentials end, and a drain fails no call.

Also, the server does not read the requests of anonymous callers.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio
import pytest

from pilothouse_server.identity.authenticator.token_authenticator import TokenAuthenticator
from pilothouse_server.rpc.interceptors.authorization import RECHECK_SECONDS, AuthorizationLayer
from tests import waiting
from tests.conftest import Database, connection, number_changes
from tests.identity.factors import authenticator_code
from tests.promises.calling import Caller, Outcome, token_of
from tests.promises.environment import FOREIGN, Environment, quiet_environment
from tests.promises.requests import OWN, request_for, workload
from tests.waiting import patient, poll_until, runs_out

# The promised limits.
UNARY_SECONDS, STREAM_SECONDS = 1.0, 5.0
Revoke = Callable[[Environment, Caller, str], Awaitable[None]]


async def _grant(environment: Environment, caller: Caller, username: str) -> None:
    await environment.must("RevokeRole", {"username": username, "role": "developer", "namespace": OWN})


async def _session(environment: Environment, caller: Caller, username: str) -> None:
    await environment.must("Logout", {}, caller)


async def _user(environment: Environment, caller: Caller, username: str) -> None:
    fields = {"username": username, "user": {"status": "USER_STATUS_INACTIVE"}, "updateMask": "status"}
    await environment.must("UpdateUser", fields)


async def _by_administrator(environment: Environment, caller: Caller, username: str) -> None:
    whose = {"username": username}
    (session,) = (await environment.must("ListSessions", whose)).sessions
    await environment.must("RevokeSession", {**whose, "sessionId": session.session_id})


async def _one_time_code(environment: Environment, caller: Caller, username: str) -> None:
    await environment.must("ResetPassword", {"username": username, "oneTimeCode": True})


async def _factor_of_another_session(environment: Environment, caller: Caller, username: str) -> None:
    await _enrol(environment, await environment.log_in(username))


async def _lost_factor(environment: Environment, caller: Caller, username: str) -> None:
    await _enrol(environment, caller)
    await environment.must("ResetSecondFactor", {"username": username})


async def _enrol(environment: Environment, caller: Caller) -> None:
    seed = base64.b32decode((await environment.must("EnrolTotp", {}, caller)).secret)
    await environment.must("ConfirmTotp", {"code": authenticator_code(seed, time.time())}, caller)


async def ended_in_time(environment: Environment, revoke: Revoke, username: str = "somebody") -> Outcome:
    """Returns how an open stream ends after a revocation.

    Fails if the stream or unary calls continue for longer than is promised.
    """
    caller = await environment.make_user(username, {OWN: "developer"})
    rule = environment.rule("WatchContainers")
    request = request_for(rule, {"namespace": OWN, "bookmarkPeriodSeconds": 1})
    watching = asyncio.create_task(caller.invoke(rule, request, most=99))
    assert (await caller.invoke(rule, request)).code == "OK"
    await revoke(environment, caller, username)

    async def refused() -> bool:
        return (await environment.call("ListContainers", {"namespace": OWN}, caller)).code != "OK"

    try:
        await poll_until(refused, seconds=UNARY_SECONDS, what="the end of unary calls")
        return await asyncio.wait_for(watching, patient(STREAM_SECONDS))
    finally:
        watching.cancel()


async def test_streams_end_when_access_is_revoked(environment: Environment) -> None:
    assert RECHECK_SECONDS < STREAM_SECONDS
    for revoke in (
        *(_grant, _session, _user, _by_administrator),
        *(_one_time_code, _factor_of_another_session, _lost_factor),
    ):
        outcome = await ended_in_time(environment, revoke, f"of{revoke.__name__.replace('_', '-')}")
        assert outcome.code in ("NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"), revoke.__name__


async def test_streams_end_after_a_revocation_even_without_a_notification(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenAuthenticator, "invalidate", lambda _self: None)
    environment.server.application.feed.on_grants_changed = lambda: None
    outcome = await ended_in_time(environment, _grant)
    assert outcome.code in ("NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED")


@pytest.mark.full
async def test_principals_that_are_cached_too_long_are_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.server.application.feed.on_grants_changed = lambda: None
    environment.server.application.authenticator._cache_seconds = 600.0
    monkeypatch.setattr(waiting, "PATIENCE", 2.0)
    with pytest.raises(AssertionError, match="the end of unary calls"):
        await ended_in_time(environment, _session)


async def faults_of_a_drain(environment: Environment) -> list[str]:
    """Drains under load, while one call waits for a lock; returns the faults."""
    create, watch = environment.rule("CreateContainer"), environment.rule("WatchContainers")
    grace = environment.server.application.settings.grace_seconds
    watching = asyncio.create_task(
        environment.admin.invoke(watch, request_for(watch, {"namespace": OWN}), most=1_000_000)
    )
    outcomes: list[Outcome] = []
    drain_began = asyncio.Event()

    async def load(number: int) -> None:
        step = 0
        while True:
            fields = {"namespace": OWN, "container": workload(f"load-{number}-{step}")}
            # A call that arrives in the last moment may be cancelled by gRPC's stop.
            by_grpc = ("UNAVAILABLE", "CANCELLED") if drain_began.is_set() else ("UNAVAILABLE",)
            outcome = await environment.admin.invoke(create, request_for(create, fields))
            if outcome.reason == "SHUTTING_DOWN" or (outcome.code in by_grpc and not outcome.trailing):
                # The call was sent elsewhere or found the port closed. It was not in flight, which the counts
                # below prove.
                return
            outcomes.append(outcome)
            step += 1

    async with environment.sql() as sql:
        async with sql.transaction():
            await sql.execute("SELECT FROM namespaces WHERE name = $1 FOR UPDATE", FOREIGN)
            fields = {"name": FOREIGN, "namespace": {"description": "held"}, "updateMask": "description"}
            held = asyncio.create_task(environment.call("UpdateNamespace", fields))
            loads = [asyncio.create_task(load(number)) for number in range(6)]

            async def under_way() -> bool:
                waits = (
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"
                )
                # A transaction would see all sessions as they were at its first query.
                async with connection(environment.server.database.admin_dsn) as looking:
                    return len(outcomes) > 30 and bool(await looking.fetchval(waits, "%namespaces%"))

            await poll_until(under_way)
            drain_began.set()
            stopping = asyncio.create_task(environment.server.application.stop())
            # If no call is left to wait for, the drain ends before the grace period.
            before_the_end = asyncio.create_task(asyncio.wait([stopping], timeout=runs_out(0.9 * grace)))
            # Watchers are notified first. The checks below report a watcher that was not notified soon.
            await asyncio.wait([watching], timeout=runs_out(grace / 4))
        last = await asyncio.wait_for(held, patient(grace + 10))
        _, left = await before_the_end
        in_time = not left
        await stopping
        await asyncio.wait_for(asyncio.gather(*loads), patient(10))
        ended = await asyncio.wait_for(watching, patient(5))
        made = await sql.fetchval("SELECT count(*) FROM containers")
        await number_changes(sql)
        kept = await sql.fetchval(
            "SELECT count(*) FROM operation_logs WHERE request_path = $1 AND error_code IS NULL",
            create.method,
        )
        closed = await sql.fetchval(
            "SELECT count(*) FROM operation_logs WHERE request_path = $1 "
            "AND metadata ->> 'reason' = 'SHUTTING_DOWN'",
            watch.method,
        )
    codes = {outcome.code for outcome in (*outcomes, last)}
    found = {
        f"calls ended {codes}": codes == {"OK"},
        f"{len(outcomes)} answers, {made} containers, {kept} records": len(outcomes) == made == kept,
        f"the watch ended {ended.code} {ended.reason}": (ended.code, ended.reason)
        == ("UNAVAILABLE", "SHUTTING_DOWN"),
        f"{closed} records of the watch's end": closed == 1,
        f"it took the whole grace of {grace} s": in_time,
    }
    return [fault for fault, right in found.items() if not right]


async def test_a_drain_finishes_calls_and_notifies_watchers(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch, grace_seconds=patient(2.5)) as environment:
        assert await faults_of_a_drain(environment) == []


@pytest.mark.full
async def test_a_drain_that_cuts_calls_off_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        server = environment.server.application._server
        assert server is not None
        gentle = server.stop
        monkeypatch.setattr(server, "stop", lambda _grace: gentle(0))
        found = await faults_of_a_drain(environment)
    assert any(fault.startswith("calls ended") for fault in found)


@pytest.mark.full
async def test_a_drain_that_does_not_notify_watchers_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuthorizationLayer, "drain", lambda *_: None)
    async with quiet_environment(database, tmp_path, monkeypatch, grace_seconds=patient(1.0)) as environment:
        found = await faults_of_a_drain(environment)
    assert any(fault.startswith("the watch ended") for fault in found)
    assert any(fault.startswith("it took") for fault in found)
    assert not any(fault.startswith("calls ended") for fault in found)


async def test_the_request_of_an_anonymous_caller_is_not_read(environment: Environment) -> None:
    rule = environment.rule("CreateContainer")
    big = b"\x0a" + b"x" * 3_000_000
    outcome = await environment.stranger.invoke(rule, big)
    assert (outcome.code, outcome.reason) == ("UNAUTHENTICATED", "NO_TOKEN")
    # Beyond the server's limit an anonymous caller may get the same code, because none of the request was read.
    bigger = b"\x0a" + b"x" * 6_000_000
    outcome = await environment.stranger.invoke(rule, bigger)
    assert outcome.code in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
    outcome = await environment.admin.invoke(rule, bigger)
    assert outcome.code == "RESOURCE_EXHAUSTED"
    await environment.must("ListContainers", {"namespace": OWN})


async def test_a_call_whose_connection_closes_returns_its_database_connection(
    environment: Environment,
) -> None:
    channel = grpc.aio.insecure_channel(environment.server.address)
    caller = Caller(channel, token_of(environment.admin))
    rule = environment.rule("UpdateNamespace")
    async with environment.sql() as sql, sql.transaction():
        await sql.execute("SELECT FROM namespaces WHERE name = $1 FOR UPDATE", OWN)
        call = caller.open(rule, environment.request(rule).SerializeToString())
        answer = asyncio.ensure_future(call)

        async def waits() -> bool:
            return bool(await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await poll_until(waits)
        await channel.close()
        await asyncio.gather(answer, return_exceptions=True)

    async def settled() -> bool:
        return environment.server.application.database.app.lent == 0

    await poll_until(settled, seconds=5)
