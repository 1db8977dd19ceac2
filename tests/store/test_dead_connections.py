"""Connections to a PostgreSQL server that disappeared silently are ended, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store import dead_connections
from pilothouse_server.store.connection import Driver
from pilothouse_server.store.dead_connections import FIRST_LOOKS, DeadConnectionReaper
from pilothouse_server.store.pool import Limits, Pool
from tests.conftest import Database
from tests.waiting import patient, poll_until

LIMITS = Limits(open=4, working=4, idle=4, waiting=10, lifetime_seconds=3600, idle_seconds=3600)


class Opener:
    """Opens connections until `fails` is set to an error, which it then raises."""

    def __init__(self, dsn: str, role: str = "") -> None:
        self.dsn = dsn
        self.settings = {"role": role} if role else {}
        self.fails: BaseException | None = None

    async def __call__(self) -> Driver:
        if self.fails is not None:
            raise self.fails
        driver: Driver = await asyncpg.connect(
            self.dsn, connection_class=Driver, server_settings=self.settings
        )
        return driver


@pytest_asyncio.fixture(loop_scope="session")
async def opener(database: Database) -> Opener:
    return Opener(database.app_dsn)


@pytest_asyncio.fixture(loop_scope="session")
async def pool(opener: Opener) -> AsyncIterator[Pool]:
    made = Pool(opener, LIMITS)
    yield made
    await made.close()


async def _sleeping(pool: Pool) -> asyncio.Task[str]:
    """Starts a long statement on one connection, next to another connection that is idle."""

    async def long() -> str:
        async with pool.connect() as connection, pool.connect():
            return await connection.command("SELECT pg_sleep(600)")

    task = asyncio.create_task(long())

    async def waits() -> bool:
        return any(True for _ in pool.waiting_for_answers)

    await poll_until(waits, what="the statement is under way")
    return task


def _asked_after(watch: DeadConnectionReaper) -> int:
    looks = 1
    while not watch.must_check():
        looks += 1
    return looks


@pytest.mark.parametrize("answer", [None, asyncpg.TooManyConnectionsError("sorry")])
async def test_a_long_statement_is_left_alone(pool: Pool, opener: Opener, answer: Exception | None) -> None:
    """That holds also if PostgreSQL has no connection left for the check."""
    sleeping = await _sleeping(pool)
    watch = DeadConnectionReaper(pool, direct=True)
    # The reaper checks a long statement rarely.
    assert [_asked_after(watch) for _ in range(3)] == [FIRST_LOOKS, 2, 4]
    opener.fails = answer
    assert await watch.close_dead() == 0
    assert not sleeping.done()
    await cancel_and_wait(sleeping)


async def test_a_login_that_assumes_a_role_finds_its_connections(database: Database) -> None:
    """With one login for all roles, a connection belongs to the login, in every role that it has assumed."""
    opener = Opener(database.admin_dsn, role="pilothouse_app")
    pool = Pool(opener, LIMITS)
    sleeping = await _sleeping(pool)
    assert await DeadConnectionReaper(pool, direct=True).close_dead() == 0
    await cancel_and_wait(sleeping)
    await pool.close()


async def test_short_statements_cause_no_checks(pool: Pool) -> None:
    watch = DeadConnectionReaper(pool, direct=True)
    for _ in range(2 * FIRST_LOOKS):
        async with pool.connect() as connection:
            await connection.command("SELECT 1")
            # A connection in use that waits for no response needs no check.
            assert not watch.must_check()


async def test_an_unfinished_connection_that_was_returned_is_left_to_the_pool(pool: Pool) -> None:
    """The call was cancelled: its statement is being ended, and no caller waits for the response."""
    sleeping = await _sleeping(pool)
    sleeping.cancel()
    await asyncio.wait({sleeping})
    watch = DeadConnectionReaper(pool, direct=True)
    assert not any(watch.must_check() for _ in range(2 * FIRST_LOOKS))
    assert await watch.close_dead() == 0


@pytest.mark.parametrize("direct", [True, False])
async def test_all_connections_to_an_unresponsive_server_are_ended(
    pool: Pool, opener: Opener, *, direct: bool
) -> None:
    sleeping = await _sleeping(pool)
    opener.fails = TimeoutError()
    assert await DeadConnectionReaper(pool, direct=direct).close_dead() >= 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await sleeping


async def test_connections_that_the_server_does_not_have_are_ended(
    pool: Pool, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server responds under the address: it has no such processes."""
    sleeping = await _sleeping(pool)
    monkeypatch.setattr(Driver, "get_server_pid", lambda self: 4_000_000 + id(self) % 1000)
    monkeypatch.setattr(dead_connections, "LOOK_SECONDS", patient(1.0))
    # Behind a pooler, process ids mean nothing.
    assert await DeadConnectionReaper(pool, direct=False).close_dead() == 0
    assert await DeadConnectionReaper(pool, direct=True).close_dead() >= 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await sleeping
