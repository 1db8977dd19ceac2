"""Promise 13: one user's watches do not delay other callers' queries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from pilothouse_server.flowcontrol.fair_queue import FairQueue
from tests.conftest import Database, connection, number_changes
from tests.promises.environment import Environment, quiet_environment
from tests.promises.holding import connections, held, holding
from tests.promises.requests import OWN, request_for
from tests.promises.test_admission import admission_of
from tests.waiting import poll_until

_WATCHES = 30
# The number of connections for calls. In the control, the watches occupy all of them on every machine, because
# each read has a connection until its lock times out.
_CONNECTIONS = 6
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND usename LIKE '%app' AND wait_event_type = 'Lock'"
)

_LOG_INS = "SELECT count(*) FROM operation_logs WHERE username = 'eve' AND request_path LIKE '%/Login'"


async def _beside_watches(environment: Environment, fewest: int, code: str) -> int:
    """Returns how many connections one user's watches of records occupy.

    The result is measured once another user's call ends with `code`.
    """
    eve = await environment.make_user("eve", {OWN: "operator"})
    watch = environment.rule("WatchOperations")
    hold = held(watch, request_for(watch, {"namespace": OWN}), eve.metadata)
    # A transaction sees only the sessions that existed at its first query, so another connection counts them.
    async with (
        _locking(environment) as sql,
        connection(environment.server.database.admin_dsn) as looking,
        connections(environment.server.address, 1) as channels,
    ):
        # During the lock no record can be numbered, and a reader of the log waits for the numbering first.
        async def is_recorded() -> int:
            await number_changes(looking)
            return int(await looking.fetchval(_LOG_INS))

        await poll_until(is_recorded, what="the record of her log-in")
        await sql.execute("LOCK TABLE operation_logs IN ACCESS EXCLUSIVE MODE")
        async with holding(channels, [hold], _WATCHES):

            async def waiting() -> int:
                return int(await looking.fetchval(_WAITING))

            async def seated() -> int:
                return admission_of(environment).streams.in_use

            await poll_until(seated, lambda count: count == _WATCHES, what="the watches")
            found = await poll_until(waiting, lambda count: count >= fewest, what="their looks")

            async def other() -> str:
                return (await environment.call("GetContainer", {"namespace": OWN, "name": "none"})).code

            await poll_until(other, lambda met: met == code, what="the call of another user")
            return max(found, await waiting())


@asynccontextmanager
async def _locking(environment: Environment) -> AsyncIterator[asyncpg.Connection]:
    async with connection(environment.server.database.admin_dsn) as sql, sql.transaction():
        yield sql


async def test_watches_of_one_user_occupy_few_connections(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(
        database, tmp_path, monkeypatch, pool_open_connections=_CONNECTIONS
    ) as environment:
        assert await _beside_watches(environment, 3, "NOT_FOUND") == 3


@pytest.mark.full
async def test_watches_that_occupy_all_connections_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: each watch reads without waiting for its turn."""

    @asynccontextmanager
    async def at_once(_self: FairQueue, _caller: int) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(FairQueue, "seat", at_once)
    async with quiet_environment(
        database, tmp_path, monkeypatch, pool_open_connections=_CONNECTIONS
    ) as environment:
        assert await _beside_watches(environment, _CONNECTIONS, "UNAVAILABLE") == _CONNECTIONS
