"""A pool lends few connections at a time, in order, and keeps nobody waiting for slow work."""

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
    """Nothing takes so long that it stops counting, but where a test says so."""
    monkeypatch.setattr("pilothouse_server.store.pool.SHORT_SECONDS", 3600.0)


async def test_few_work_at_a_time_and_the_rest_takes_turns(database: Database) -> None:
    async with pool_of(database.app_dsn, pool_working_connections=WORKING) as pool:
        most, order = 0, []
        # All are open, so that nobody overtakes one that is being opened.
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


async def test_what_takes_long_lets_others_go_ahead(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse_server.store.pool.SHORT_SECONDS", 0.05)
    async with (
        pool_of(database.app_dsn, pool_working_connections=WORKING, pool_open_connections=7) as pool,
        AsyncExitStack() as stack,
    ):
        # Each keeps its connection; nobody gives one back, up to the number that may be open.
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
        # Where each waited for what the others have, none would end.
        async with within(20.0):
            await asyncio.gather(*(nested() for _ in range(WORKING)))
        assert pool.lent == 0


async def test_no_more_may_wait_than_the_server_has_calls(database: Database) -> None:
    settings = {"pool_working_connections": 1, "max_concurrent_calls": 1, "max_streams": 1}
    async with pool_of(database.app_dsn, **settings) as pool:
        held = await pool.take()
        waiting = [asyncio.create_task(pool.take()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(PoolBusyError):
            await asyncio.create_task(pool.take())
        # A caller that leaves makes room for another, and takes no turn.
        await cancel_and_wait(waiting[0])
        third = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        pool.give(held)
        pool.give(await waiting[1])
        pool.give(await third)
        assert pool.lent == 0


async def test_who_waits_in_vain_is_refused(database: Database) -> None:
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


async def test_a_turn_that_comes_as_its_caller_goes_is_passed_on(database: Database) -> None:
    async with pool_of(database.app_dsn, pool_working_connections=1) as pool:
        held = await pool.take()
        first, second = (asyncio.create_task(pool.take()) for _ in range(2))
        await asyncio.sleep(0)
        pool.give(held)
        # It has its turn, and has not gone on yet.
        first.cancel()
        async with within(20.0):
            pool.give(await second)
        assert first.cancelled()
        assert pool.lent == 0


async def test_who_goes_while_waiting_is_not_kept(database: Database) -> None:
    """An error knows the frames that it passed: if one of them knew the task, the task's objects would stay with
    it.
    """
    async with pool_of(database.app_dsn, pool_working_connections=1) as pool:
        held = await pool.take()
        with without_looks():
            task = asyncio.create_task(pool.take())
            await asyncio.sleep(0)
            await cancel_and_wait(task)
            left = weakref.ref(task)
            del task
            # The loop knows those that have just ended until its next turn.
            await asyncio.sleep(0)
            assert left() is None
        pool.give(held)


async def test_the_end_of_a_pool_refuses_those_who_wait(database: Database) -> None:
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
async def test_what_is_old_or_was_unused_is_replaced(database: Database, limit: str) -> None:
    async def pids(seconds: float) -> set[int]:
        async with pool_of(database.app_dsn, **{limit: seconds}) as pool:
            found = set()
            for _ in range(3):
                async with pool.connect() as used:
                    found.add((await used.execute(_PID)).scalar_one())
            return found

    assert len(await pids(-1.0)) == 3
    assert len(await pids(patient(60.0))) == 1


async def test_a_connection_is_of_no_use_once_it_was_given_back(database: Database) -> None:
    async with pool_of(database.app_dsn) as pool:
        async with pool.connect() as used:
            await used.execute(_PID)
        with pytest.raises(StatementError):
            await used.execute(_PID)
        # Giving back twice gives nobody's connection back.
        other = await pool.take()
        pool.give(used)
        assert pool.lent == 1
        pool.give(other)


async def test_names_of_prepared_statements_are_nobody_else_s(database: Database) -> None:
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
async def test_nothing_is_prepared_where_the_settings_say_so(database: Database, prepared: bool) -> None:
    query = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> :none")
    async with (
        pool_of(database.app_dsn, pool_prepared_statements=prepared) as pool,
        pool.connect() as used,
    ):
        counts = [(await used.execute(query, {"none": ""})).scalar_one() for _ in range(2)]
    assert all(count > 0 if prepared else count == 0 for count in counts)


@pytest.mark.full
async def test_a_statement_that_nobody_answers_ends_with_its_connection(database: Database) -> None:
    """PostgreSQL itself ends long statements: this is for a server that is not there any more."""
    query = text("SELECT pg_sleep(:seconds)")
    limit = patient(0.5)
    async with pool_of(database.app_dsn) as pool:
        async with pool.connect() as used:
            used.driver._config = used.driver._config._replace(command_timeout=limit)
            # The time is each statement's own.
            for _ in range(3):
                await used.execute(query, {"seconds": 0.4 * limit})
            with pytest.raises(asyncpg.ConnectionDoesNotExistError):
                await used.execute(query, {"seconds": 3600.0})
        async with pool.connect() as other:
            assert (await other.execute(_PID)).scalar_one()
