"""A pool lends few connections at a time, in order, and slow work does not delay other callers."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import AsyncExitStack

import asyncpg
import pytest
from sqlalchemy import text

from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.pool import PoolBusyError, PoolClosedError
from pilothouse_server.store.statements import StatementError
from tests.conftest import Database, connection
from tests.garbage import without_looks
from tests.store.pools import pool_of
from tests.waiting import patient, poll_until, runs_out, within

_PID = text("SELECT pg_backend_pid()")
WORKING = 3


@pytest.fixture(autouse=True)
def _all_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all work count as short, except where a test sets another limit."""
    monkeypatch.setattr("pilothouse_server.store.pool.SHORT_SECONDS", 3600.0)


async def test_few_connections_work_at_a_time_and_callers_take_turns(database: Database) -> None:
    async with pool_of(database.app_dsn, pool_working_connections=WORKING) as pool:
        most, order = 0, []
        # All connections are open, so that no caller overtakes one whose connection is being opened.
        async with pool.connect(), pool.connect(), pool.connect():
            pass

        async def use(number: int) -> None:
            nonlocal most
            async with pool.connect() as connection:
                order.append(number)
                most = max(most, pool.lent)
                await connection.execute(_PID)

        await asyncio.gather(*(use(number) for number in range(40)))
        assert most == WORKING
        assert order == list(range(40))
        assert pool.lent == 0


async def test_long_work_lets_other_callers_continue(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse_server.store.pool.SHORT_SECONDS", 0.05)
    async with (
        pool_of(database.app_dsn, pool_working_connections=WORKING, pool_open_connections=7) as pool,
        AsyncExitStack() as stack,
    ):
        # Each caller keeps its connection, and none is returned, up to the number that may be open.
        async def keep() -> None:
            taken = await pool.take()
            stack.callback(pool.give, taken)

        async with within(20.0):
            for _ in range(7):
                await asyncio.create_task(keep())
        late = asyncio.create_task(pool.take())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(late), runs_out(0.2))
        await stack.aclose()
        pool.give(await late)


async def test_a_task_gets_a_second_connection_while_it_has_one(database: Database) -> None:
    async with pool_of(database.app_dsn, pool_working_connections=WORKING) as pool:

        async def nested() -> None:
            async with pool.connect():
                await both.wait()
                async with pool.connect() as second:
                    await second.execute(_PID)

        both = asyncio.Barrier(WORKING)
        # If each task waited for a connection that another one has, none would end.
        async with within(20.0):
            await asyncio.gather(*(nested() for _ in range(WORKING)))
        assert pool.lent == 0


async def test_the_number_of_waiting_callers_is_bounded(database: Database) -> None:
    settings = {"pool_working_connections": 1, "max_concurrent_calls": 1, "max_streams": 1}
    async with pool_of(database.app_dsn, **settings) as pool:
        held = await pool.take()
        waiting = [asyncio.create_task(pool.take()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(PoolBusyError):
            await asyncio.create_task(pool.take())
        # A caller that is cancelled makes room for another, and uses no turn.
        await cancel_and_wait(waiting[0])
        third = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        pool.give(held)
        pool.give(await waiting[1])
        pool.give(await third)
        assert pool.lent == 0


async def test_a_caller_that_waits_too_long_is_refused(database: Database) -> None:
    async with pool_of(database.app_dsn, pool_working_connections=1) as pool:
        pool._wait_seconds = 0.05
        for _ in range(2):
            held = await pool.take()
            waiting = [asyncio.create_task(pool.take()) for _ in range(3)]
            for each in waiting:
                with pytest.raises(PoolBusyError):
                    await each
            pool.give(held)
        pool._wait_seconds = 3600.0
        held = await pool.take()
        late = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        pool.give(held)
        pool.give(await late)


async def test_the_turn_of_a_caller_cancelled_at_that_moment_is_passed_on(database: Database) -> None:
    async with pool_of(database.app_dsn, pool_working_connections=1) as pool:
        held = await pool.take()
        first, second = (asyncio.create_task(pool.take()) for _ in range(2))
        await asyncio.sleep(0)
        pool.give(held)
        # The first task has its turn, but has not continued yet.
        first.cancel()
        async with within(20.0):
            pool.give(await second)
        assert first.cancelled()
        assert pool.lent == 0


async def test_a_task_cancelled_while_waiting_is_freed(database: Database) -> None:
    """An error refers to the frames that it passed.

    If one of them referred to the task, the task's objects would stay in memory with the error.
    """
    async with pool_of(database.app_dsn, pool_working_connections=1) as pool:
        held = await pool.take()
        with without_looks():
            task = asyncio.create_task(pool.take())
            await asyncio.sleep(0)
            await cancel_and_wait(task)
            left = weakref.ref(task)
            del task
            # The loop refers to tasks that have just ended until its next iteration.
            await asyncio.sleep(0)
            assert left() is None
        pool.give(held)


async def test_closing_a_pool_refuses_waiting_callers(database: Database) -> None:
    async with pool_of(database.app_dsn, pool_working_connections=1) as pool:
        held = await pool.take()
        waiting = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(PoolClosedError):
            await waiting
        with pytest.raises(PoolClosedError):
            await pool.take()
        driver = held.driver
        assert not driver.is_closed()
        pool.give(held)
        assert driver.is_closed()


async def test_a_connection_that_the_server_closed_is_replaced(database: Database) -> None:
    async with pool_of(database.app_dsn) as pool, connection(database.admin_dsn) as admin:
        async with pool.connect() as used:
            pid = (await used.execute(_PID)).scalar_one()
            driver = used.driver
        await admin.execute("SELECT pg_terminate_backend($1)", pid)

        async def noticed() -> bool:
            return bool(driver.is_closed())

        await poll_until(noticed)
        async with pool.connect() as used:
            assert (await used.execute(_PID)).scalar_one() != pid


@pytest.mark.parametrize("limit", ["pool_max_lifetime_seconds", "pool_max_idle_seconds"])
async def test_old_and_long_unused_connections_are_replaced(database: Database, limit: str) -> None:
    async def pids(seconds: float) -> set[int]:
        async with pool_of(database.app_dsn, **{limit: seconds}) as pool:
            found = set()
            for _ in range(3):
                async with pool.connect() as used:
                    found.add((await used.execute(_PID)).scalar_one())
            return found

    assert len(await pids(-1.0)) == 3
    assert len(await pids(patient(60.0))) == 1


async def test_a_returned_connection_cannot_be_used(database: Database) -> None:
    async with pool_of(database.app_dsn) as pool:
        async with pool.connect() as used:
            await used.execute(_PID)
        with pytest.raises(StatementError):
            await used.execute(_PID)
        # A second return does not return another caller's connection.
        other = await pool.take()
        pool.give(used)
        assert pool.lent == 1
        pool.give(other)


async def test_names_of_prepared_statements_are_unique(database: Database) -> None:
    """A transaction pooler shares its connections between servers, and each numbers from 1."""
    names: list[str] = []
    query = text("SELECT name, pg_backend_pid() FROM pg_prepared_statements")
    async with pool_of(database.app_dsn) as pool, pool.connect() as one, pool.connect() as other:
        for each in (one, other):
            names += [row.name for row in await each.execute(query)]
        plain = asyncpg.Connection._get_unique_id(one.driver, "stmt")
    assert len(set(names)) == len(names) >= 2
    assert all(len(name) <= 63 and not name.startswith(plain[:10]) for name in names)


@pytest.mark.parametrize("prepared", [False, True])
async def test_no_statement_is_prepared_if_the_settings_forbid_it(database: Database, prepared: bool) -> None:
    query = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> :none")
    async with (
        pool_of(database.app_dsn, pool_prepared_statements=prepared) as pool,
        pool.connect() as used,
    ):
        counts = [(await used.execute(query, {"none": ""})).scalar_one() for _ in range(2)]
    assert all(count > 0 if prepared else count == 0 for count in counts)


@pytest.mark.full
async def test_a_statement_without_a_response_ends_with_its_connection(database: Database) -> None:
    """PostgreSQL itself ends long statements; this limit is for a server that has disappeared."""
    query = text("SELECT pg_sleep(:seconds)")
    limit = patient(0.5)
    async with pool_of(database.app_dsn) as pool:
        async with pool.connect() as used:
            used.driver._config = used.driver._config._replace(command_timeout=limit)
            # Each statement has its own time limit.
            for _ in range(3):
                await used.execute(query, {"seconds": 0.4 * limit})
            with pytest.raises(asyncpg.ConnectionDoesNotExistError):
                await used.execute(query, {"seconds": 3600.0})
        async with pool.connect() as other:
            assert (await other.execute(_PID)).scalar_one()
