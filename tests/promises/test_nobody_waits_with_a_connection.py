"""No call occupies a connection while it waits for a cluster or another call.

The pools have few connections, so a call that occupies one while it waits would delay all others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.rpc.interceptors.audit import DRY_RUN_KEY
from tests.conftest import Database, connection
from tests.harness import PASSWORD, running_server
from tests.promises import requests
from tests.promises.calling import Caller, Outcome, token_of
from tests.promises.environment import FOREIGN, Environment, quiet_environment
from tests.promises.requests import OWN
from tests.waiting import poll_until, runs_out, within

CONNECTIONS = 3
OPEN_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
"""
FEW: dict[str, Any] = {
    "pool_open_connections": CONNECTIONS,
    "pool_idle_connections": 1,
    "max_calls_per_connection": 400,
    # The same user makes the slow calls and the others. Only connections are scarce here, not seats.
    "max_concurrent_calls": 400,
    "max_calls_per_user": 400,
}


@pytest_asyncio.fixture(loop_scope="session")
async def narrow_environment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Environment]:
    """Yields a server whose pools have three connections."""
    async with quiet_environment(database, tmp_path, monkeypatch, **FEW) as made:
        yield made


def creation(namespace: str = OWN, **fields: Any) -> requests.Fields:
    return {
        "namespace": namespace,
        "requestId": str(uuid4()),
        "container": requests.workload("once"),
        **fields,
    }


@asynccontextmanager
async def locked_namespace(environment: Environment, name: str) -> AsyncIterator[None]:
    """Blocks every mutation in the namespace until the end of the block."""
    async with connection(environment.server.database.admin_dsn) as sql, sql.transaction():
        await sql.execute("SELECT FROM namespaces WHERE name = $1 FOR NO KEY UPDATE", name)
        yield


async def waiting_for_locks(environment: Environment) -> int:
    async with environment.sql() as sql:
        found: int = await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename LIKE '%app' AND wait_event_type = 'Lock'"
        )
        return found


async def a_bystander_is_answered(environment: Environment, prefix: str = "beside") -> None:
    """Makes reads and mutations in another namespace, which must succeed in time.

    There are more of them than connections.
    """
    names = [f"{prefix}-{number}" for number in range(2 * CONNECTIONS)]
    async with within(4.0):
        made = await asyncio.gather(
            *(
                environment.call(
                    "CreateContainer", {"namespace": FOREIGN, "container": requests.workload(name)}
                )
                for name in names
            )
        )
        read = await asyncio.gather(
            *(environment.call("GetContainer", {"namespace": FOREIGN, "name": name}) for name in names)
        )
    assert {(outcome.code, outcome.message) for outcome in (*made, *read)} == {("OK", "")}


async def test_120_calls_of_one_request_id_occupy_one_connection(narrow_environment: Environment) -> None:
    environment, request = narrow_environment, creation()
    async with locked_namespace(environment, OWN):
        calls = [asyncio.create_task(environment.call("CreateContainer", request)) for _ in range(120)]
        await poll_until(lambda: waiting_for_locks(environment))
        await a_bystander_is_answered(environment)
        assert await waiting_for_locks(environment) == 1
        assert not any(call.done() for call in calls)
    outcomes = await asyncio.gather(*calls)
    assert {(outcome.code, outcome.message) for outcome in outcomes} == {("OK", "")}
    assert len({outcome.answer.container.uid for outcome in outcomes}) == 1


async def test_a_replay_is_executed_if_the_first_call_fails(narrow_environment: Environment) -> None:
    environment, request = narrow_environment, creation()
    rule = environment.rule("CreateContainer")
    async with locked_namespace(environment, OWN):
        first = environment.admin.open(rule, requests.request_for(rule, request).SerializeToString())
        await poll_until(lambda: waiting_for_locks(environment))
        others = [asyncio.create_task(environment.call("CreateContainer", request)) for _ in range(5)]
        first.cancel()
        await a_bystander_is_answered(environment)
    outcomes = await asyncio.gather(*others)
    assert {outcome.code for outcome in outcomes} == {"OK"}
    assert len({outcome.answer.container.uid for outcome in outcomes}) == 1


@asynccontextmanager
async def second_server(environment: Environment, directory: Path) -> AsyncIterator[Environment]:
    """Yields another server on the same database.

    For the database it is a separate server process. The caller's session is valid there.
    """
    async with running_server(
        environment.server.database, directory, cluster=environment.server.cluster, **FEW
    ) as server:
        yield Environment(server, environment.rules, Caller(server.channel(), token_of(environment.admin)))


async def test_a_replay_at_another_server_waits_and_is_refused_in_time(
    narrow_environment: Environment, tmp_path: Path
) -> None:
    environment, request = narrow_environment, creation()
    async with second_server(environment, tmp_path) as other:
        async with locked_namespace(environment, OWN):
            first = asyncio.create_task(environment.call("CreateContainer", request))
            await poll_until(lambda: waiting_for_locks(environment))
            replays = [asyncio.create_task(other.call("CreateContainer", request)) for _ in range(20)]
            refused(await in_time(other, "CreateContainer", request))
            await a_bystander_is_answered(other)
            assert await waiting_for_locks(environment) == 1
        outcomes = [await first, *await asyncio.gather(*replays)]
        assert {outcome.code for outcome in outcomes} == {"OK"}
        assert len({outcome.answer.container.uid for outcome in outcomes}) == 1


async def in_time(environment: Environment, method: str, fields: requests.Fields) -> Outcome:
    """Returns the outcome of a call that the server ends before its deadline.

    The server responds a fixed time before the deadline. A busy machine may need longer than that, so the call
    is repeated with longer deadlines.
    """
    rule = environment.rule(method)
    seconds = 1.0
    while True:
        outcome = await environment.admin.invoke(
            rule, requests.request_for(rule, fields), timeout=runs_out(seconds)
        )
        if outcome.code != "DEADLINE_EXCEEDED" or seconds >= 8.0:
            return outcome
        seconds *= 2


def refused(outcome: Outcome) -> None:
    assert (outcome.code, outcome.reason) == ("ABORTED", "CONCURRENT_CHANGE")
    retry = outcome.detail(error_details_pb2.RetryInfo)
    assert retry is not None
    assert retry.retry_delay.ToTimedelta() > timedelta()


async def test_a_claim_is_valid_until_its_owners_deadline(narrow_environment: Environment) -> None:
    environment = narrow_environment
    request = {"namespace": OWN, "requestId": str(uuid4())}
    async with environment.sql() as sql:
        # Such a row remains if a server is killed while it waits for a cluster.
        await sql.execute(
            "INSERT INTO request_claims SELECT id, $1, gen_random_uuid(), now() + interval '5 minutes'"
            " FROM users WHERE username = 'admin'",
            request["requestId"],
        )
        refused(await in_time(environment, "ImportContainers", request))
        replay = asyncio.create_task(environment.call("ImportContainers", request))
        await a_bystander_is_answered(environment)
        assert not replay.done()
        await sql.execute("UPDATE request_claims SET expires_at = now()")
    assert (await replay).code == "OK"


@pytest.mark.parametrize("method", ["ImportContainers", "CreateContainer"])
async def test_calls_to_a_cluster_that_hangs_occupy_no_connection(
    narrow_environment: Environment, method: str
) -> None:
    """Makes more imports or dry runs of a container than there are connections."""
    environment = narrow_environment
    assert environment.server.cluster is not None
    faults = environment.server.cluster.faults
    asked: list[str] = []
    faults.on_request = lambda _method, path: asked.append(path)
    faults.storage_stalled = True

    def request(number: int) -> requests.Fields:
        if method == "ImportContainers":
            return {"namespace": OWN, "requestId": str(uuid4())}
        return {"namespace": OWN, "container": requests.workload(f"try-{number}"), "validateOnly": True}

    calls = [
        asyncio.create_task(environment.call(method, request(number))) for number in range(3 * CONNECTIONS)
    ]
    await poll_until(lambda: count(asked), lambda number: number >= CONNECTIONS)
    await a_bystander_is_answered(environment)
    assert not any(call.done() for call in calls)
    faults.storage_stalled = False
    outcomes = await asyncio.gather(*calls)
    assert {(outcome.code, outcome.message) for outcome in outcomes} == {("OK", "")}
    # The trailers mark a dry run.
    marks = {outcome.trailing.get(DRY_RUN_KEY) for outcome in outcomes}
    assert marks == {"true" if method == "CreateContainer" else None}


async def test_a_password_is_hashed_without_a_connection(
    narrow_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, goes_on = narrow_environment, threading.Event()
    hashing: list[str] = []
    in_thread = Passwords._in_thread

    async def slowly(passwords: Passwords, work: Callable[[], Any]) -> Any:
        hashing.append("one more")

        def when_told() -> Any:
            goes_on.wait()
            return work()

        return await in_thread(passwords, when_told)

    await environment.make_user("carol")
    monkeypatch.setattr(Passwords, "_in_thread", slowly)
    asked: list[tuple[str, requests.Fields]] = [
        ("Login", {"username": "admin", "password": PASSWORD}),
        ("ResetPassword", {"username": "carol", "newPassword": "x" * 20, "requestId": str(uuid4())}),
        ("CreateUser", {"user": requests.user("dave"), "password": PASSWORD, "requestId": str(uuid4())}),
    ]
    calls = []
    try:
        # There are two hashing threads, so both calls of each pair are hashing.
        for one, other in ((0, 1), (2, 0)):
            goes_on.clear()
            begun = len(hashing)
            calls = [asyncio.create_task(environment.call(*asked[which])) for which in (one, other)]
            await poll_until(lambda: count(hashing), lambda number, begun=begun: number == begun + 2)  # type: ignore[misc]
            await a_bystander_is_answered(environment, f"beside-{one}")
            async with environment.sql() as sql:
                # The server's own work opens transactions briefly. The transaction of a waiting call would stay
                # open.
                await poll_until(partial(sql.fetchval, OPEN_TRANSACTIONS), lambda number: number == 0)
            goes_on.set()
            assert {(outcome.code, outcome.message) for outcome in await asyncio.gather(*calls)} == {
                ("OK", "")
            }
    finally:
        goes_on.set()
        await asyncio.gather(*calls)


async def count(items: list[str]) -> int:
    return len(items)
