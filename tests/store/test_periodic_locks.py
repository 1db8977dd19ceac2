"""A periodic job holds its lock on a connection without a transaction, so it never holds VACUUM back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from pilothouse_server.audit.verification import Verification
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store import audit_tree
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.periodic import Periodic, PeriodicWork
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database, connection, number_changes
from tests.harness import running_server
from tests.identity.server import settings_of
from tests.transparency.logs import a_record, idle_application
from tests.waiting import poll_until, within

# One row for each connection that holds the lock of a periodic job. A bigint lock is shown as two numbers, its halves.
_HOLDERS = """
SELECT a.state, a.backend_xmin IS NULL AND a.backend_xid IS NULL AND a.xact_start IS NULL AS harmless
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('periodic/' || $1, 0)
"""
_OPEN_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)
  AND backend_type = 'client backend'
"""


class _Held:
    """Jobs that work until the test releases them, in place of a server's jobs."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.working: set[str] = set()
        self.may_end = asyncio.Event()

    def in_place_of(self, periodic: Periodic) -> Periodic:
        """Returns a job with the same lock that is due immediately and only waits."""
        self.names.append(periodic.name)

        async def job() -> None:
            self.working.add(periodic.name)
            await self.may_end.wait()
            self.working.discard(periodic.name)

        return replace(periodic, job=job, delay_seconds=0.001)

    async def seen(self) -> set[str]:
        return set(self.working)


async def _holders(sql: asyncpg.Connection, name: str) -> list[tuple[str, bool]]:
    return [(row["state"], row["harmless"]) for row in await sql.fetch(_HOLDERS, name)]


async def test_no_job_of_a_server_holds_its_lock_in_a_transaction(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, begin = _Held(), PeriodicWork.__init__

    def begin_held(self: PeriodicWork, store: Store, jobs: list[Periodic]) -> None:
        begin(self, store, [held.in_place_of(job) for job in jobs])

    monkeypatch.setattr(PeriodicWork, "__init__", begin_held)
    async with running_server(database, tmp_path, with_cluster=False, backup_dir=tmp_path / "backups"):
        # The pool has 16 connections: with more jobs than that, some could not work.
        assert len(held.names) == len(set(held.names)) < 16
        assert {"verify the audit log", "analyse, vacuum and reindex", "back up"} <= set(held.names)
        await poll_until(held.seen, lambda working: working == set(held.names))
        async with connection(database.admin_dsn) as sql:
            for name in held.names:
                assert await _holders(sql, name) == [("idle", True)], name
            held.may_end.set()
            for name in held.names:
                assert await poll_until(partial(_holders, sql, name), lambda rows: rows == []) == []


async def _run(pools: Pools, job: Callable[[], Awaitable[object]]) -> asyncio.Task[None]:
    """Starts a separate server that runs the job again and again."""
    return asyncio.create_task(PeriodicWork(Store(pools), [Periodic("held", 0.01, job)]).run())


async def test_one_server_at_a_time_does_a_job_and_another_takes_over(database: Database) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        first.set()
        await asyncio.Event().wait()

    async def note() -> None:
        second.set()

    one, two = Pools.connect(settings_of(database)), Pools.connect(settings_of(database))
    holding = await _run(one, hold)
    noting = None
    try:
        async with within(10):
            await first.wait()
        noting = await _run(two, note)

        async def has_asked() -> int:
            return two.maintenance.opened

        await poll_until(has_asked)
        async with connection(database.admin_dsn) as sql:
            assert len(await _holders(sql, "held")) == 1
            assert not second.is_set()
            await cancel_and_wait(holding)
            async with within(10):
                await second.wait()
    finally:
        await cancel_and_wait(*(task for task in (holding, noting) if task is not None))
        await one.close()
        await two.close()


async def test_a_lost_connection_does_not_keep_its_lock(database: Database) -> None:
    """A job continues without its lock, and its next run acquires the lock again."""
    runs: list[int] = []

    async def lose() -> None:
        async with connection(database.admin_dsn) as sql:
            runs.append(
                await sql.fetchval(
                    "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks AS l WHERE l.locktype = 'advisory' "
                    "AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('periodic/held', 0)"
                )
            )

    async def lost() -> list[int]:
        return runs

    pools = Pools.connect(settings_of(database))
    work = await _run(pools, lose)
    try:
        await poll_until(lost, lambda runs: len(runs) >= 3)
        assert set(runs) == {1}
    finally:
        await cancel_and_wait(work)
        await pools.close()


async def test_no_transaction_is_open_between_the_ranges_of_a_verification(
    database: Database, tmp_path: Path
) -> None:
    async with idle_application(database, tmp_path) as application:
        store = application.store
        unit = store.system_unit()
        await unit.begin()
        await unit.commit(audit=[a_record(number) for number in range(2500)])
        async with database.system() as sql:
            await number_changes(sql)
        await application.sealer.seal()
        async with store.system_read() as transaction:
            state = await audit_tree.read(transaction)
        stretches = 0
        async with connection(database.admin_dsn) as sql:
            async for report in Verification(store, state, application.sealer.identity).run():
                await poll_until(lambda: sql.fetchval(_OPEN_TRANSACTIONS), lambda count: count == 0)
                stretches += not report.done
        assert (report.verified, report.findings) == (2500, [])
        assert stretches >= 3
