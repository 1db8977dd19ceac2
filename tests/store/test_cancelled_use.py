"""After a cancellation at any moment, the next user of the connection finds it clean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import text

from pilothouse_migrations import roles
from pilothouse_server.store import opening
from pilothouse_server.store.connection import SLICE_ROWS, Connection
from pilothouse_server.store.pool import Pool
from pilothouse_server.store.unit_of_work import Actor, UnitOfWork
from tests.conftest import Database, connection
from tests.store.pools import pool_of
from tests.waiting import within

FOREIGN, NEXT = 4711, 42
_SLOW = text("SELECT pg_sleep(0.005), CAST(:number AS integer) AS number")
_MARK = text("INSERT INTO marks (number) VALUES (:number)")
_STATE = text(
    "SELECT coalesce(current_setting('app.current_user_id', true), '') AS caller, CAST(:number AS integer) AS number"
)
_MOST_WAITS = 40
_ACTIVITY = "SELECT state FROM pg_stat_activity WHERE pid = $1"

Use = Callable[[Pool], Coroutine[Any, Any, None]]


class _UndoneError(Exception):
    """An error that rolls back a savepoint."""


class _CancelledAt:
    """An awaitable that runs `work`, and cancels its task at the task's wait number `step`."""

    def __init__(self, work: Coroutine[Any, Any, None], step: int) -> None:
        self._work = work
        self._step = step
        self._waits = 0

    @property
    def came_so_far(self) -> bool:
        """Returns whether the task was cancelled."""
        return self._waits > self._step

    def __await__(self) -> Generator[Any, Any, None]:
        return self  # type: ignore[return-value]

    def __iter__(self) -> _CancelledAt:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Continues to the next wait."""
        return self._waiting(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        """Continues with an error from the wait."""
        return self._waiting(self._work.throw(*error))

    def _waiting(self, waited_for: Any) -> Any:
        task = asyncio.current_task()
        if self._waits == self._step and task is not None:
            task.cancel()
        self._waits += 1
        return waited_for


async def cancelled_at(work: Coroutine[Any, Any, None], step: int) -> bool:
    """Runs `work`, cancelled at its wait number `step`.

    If it ends normally, returns whether that wait was reached.
    """
    run = _CancelledAt(work, step)
    await run
    return run.came_so_far


async def read(pool: Pool) -> None:
    """Reads in a user's name."""
    async with opening.Looking(pool, FOREIGN) as connection:
        await connection.execute(_SLOW, {"number": 1})
        await connection.execute(text("SELECT generate_series(1, 3000)"))


async def read_snapshot(pool: Pool) -> None:
    """Reads in one snapshot."""
    async with opening.reading(pool, FOREIGN, snapshot=True) as (connection, _):
        await connection.execute(_SLOW, {"number": 1})


async def read_slices(pool: Pool) -> None:
    """Reads in slices, once to the end and once until the reader stops early."""
    async with opening.Looking(pool, FOREIGN) as connection:
        await connection.execute_in_slices(text("SELECT generate_series(1, 150)"))
        async with contextlib.aclosing(connection.slices(text("SELECT generate_series(1, 3000)"))) as slices:
            assert len(await anext(aiter(slices))) == SLICE_ROWS


async def write(pool: Pool) -> None:
    """Writes a change, with a savepoint that is rolled back."""
    unit = UnitOfWork(pool, Actor(FOREIGN, "foreign"), uuid4(), {})
    try:
        transaction = await unit.begin()
        with contextlib.suppress(_UndoneError):
            async with transaction.attempt():
                await transaction.connection.execute(_MARK, {"number": -1})
                raise _UndoneError
        await transaction.connection.execute(_MARK, [{"number": number} for number in (1, 2)])
        await unit.commit()
    except BaseException:
        await unit.rollback()
        raise


async def call(pool: Pool) -> None:
    """Runs a statement that is its own transaction."""
    async with opening.Connected(pool) as connection:
        await connection.execute(_SLOW, {"number": 1})


@pytest_asyncio.fixture(loop_scope="session")
async def observer(database: Database) -> AsyncIterator[asyncpg.Connection]:
    async with connection(database.admin_dsn) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def pool(database: Database) -> AsyncIterator[Pool]:
    """Yields a pool of one connection, so that the next user has the cancelled one, unless it was closed."""
    async with database.owner() as owner:
        await owner.execute(f"CREATE TABLE marks (number integer); GRANT ALL ON marks TO {roles.APP}")
    async with pool_of(database.app_dsn, pool_open_connections=1) as made:
        yield made


async def faults_of_next_user(pool: Pool, observer: asyncpg.Connection, number: int) -> list[str]:
    """Returns the faults that the next user of the connection finds."""
    connection = await pool.take()
    try:
        state = await observer.fetchval(_ACTIVITY, connection.driver.get_server_pid())
        if state != "idle" or connection.driver.is_in_transaction():
            return [f"is {state}, in a transaction"]
        row = (await connection.execute(_STATE, {"number": number})).one()
        found = [f"is {row.caller}"] if row.caller else []
        found += [] if row.number == number else ["gets another one's rows"]
        await connection.command(f"BEGIN; SELECT set_config('app.current_user_id', '{NEXT}', true)")
        row = (await connection.execute(_STATE, {"number": number})).one()
        return found + ([] if row.caller == str(NEXT) else [f"acts as {row.caller}"])
    finally:
        pool.give(connection)


async def campaign(pool: Pool, observer: asyncpg.Connection, use: Use) -> tuple[int, list[str]]:
    """Cancels a use at each of its waits.

    Returns the number of waits, and the faults that the next users found.
    """
    faults: list[str] = []
    step, reached = 0, True
    while reached and step < _MOST_WAITS:
        task = asyncio.ensure_future(cancelled_at(use(pool), step))
        await asyncio.wait([task])
        # Either the use was cancelled, or the cancellation came as it ended.
        reached = task.cancelled() or task.exception() is not None or task.result()
        async with within(20.0):
            faults += [f"{step}: {fault}" for fault in await faults_of_next_user(pool, observer, step)]
        step += 1
    return step, faults


@pytest.mark.parametrize("use", [read, read_snapshot, read_slices, write, call])
async def test_the_next_user_finds_no_trace_of_a_cancelled_use(
    pool: Pool, observer: asyncpg.Connection, use: Use
) -> None:
    waits, faults = await campaign(pool, observer, use)
    assert faults == []
    assert 2 <= waits < _MOST_WAITS
    # The same holds on a connection that was never closed, where nothing is opened and there are few waits.
    again, faults = await campaign(pool, observer, use)
    assert (faults, again >= 2) == ([], True)
    assert pool.lent <= 1


@pytest.mark.full
@pytest.mark.parametrize("use", [read, read_snapshot, read_slices, write])
async def test_a_pool_that_does_not_clean_connections_is_detected(
    pool: Pool, observer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    def careless(self: Pool, connection: Connection) -> None:
        session = connection.detach()
        if session is not None:
            session.idle_since = asyncio.get_running_loop().time()
            self._idle.append(session)
            assert session.loan is not None
            self._end(session.loan)

    monkeypatch.setattr(Pool, "give", careless)
    _, faults = await campaign(pool, observer, use)
    assert any("transaction" in fault for fault in faults), faults


async def test_a_unit_of_work_reports_exactly_whether_it_committed(pool: Pool, database: Database) -> None:
    """At every step, the change is stored if, and only if, its unit of work reports a commit."""
    outcomes = set()
    for step in range(100):
        unit = UnitOfWork(pool, Actor(FOREIGN, "foreign"), uuid4(), {})

        async def change(unit: UnitOfWork = unit, step: int = step) -> None:
            try:
                transaction = await unit.begin()
                await transaction.connection.execute(_MARK, {"number": step})
                await unit.commit()
            except BaseException:
                await unit.rollback()
                raise

        task = asyncio.ensure_future(cancelled_at(change(), step))
        await asyncio.wait([task])
        async with database.owner() as owner:
            there = await owner.fetchval("SELECT count(*) = 1 FROM marks WHERE number = $1", step)
        assert there == unit.committed, step
        outcomes.add((there, task.cancelled()))
        if not task.cancelled():
            break
    # The cancellation came before, during and after the commit.
    assert outcomes >= {(False, True), (True, True), (True, False)}
