"""Periodic jobs are independent: one that fails is counted and retried, and the others continue."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from pilothouse_server.app import NOUN_TABLES
from pilothouse_server.audit.log_identity import LogIdentity
from pilothouse_server.audit.noun import audit_jobs
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.errors import Unavailable
from pilothouse_server.metrics.noun import metrics_jobs
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import Settings
from pilothouse_server.store import periodic
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.periodic import Periodic, PeriodicWork, standard_jobs
from pilothouse_server.store.pool import PoolClosedError
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database
from tests.identity.server import settings_of
from tests.waiting import poll_until


async def test_a_failing_job_does_not_stop_another(database: Database) -> None:
    runs: Counter[str] = Counter()

    async def failing() -> None:
        runs["failing"] += 1
        raise ValueError("not foreseen")

    async def working() -> None:
        runs["working"] += 1

    async def seen() -> Counter[str]:
        return runs

    pools = Pools.connect(settings_of(database))
    jobs = [Periodic("failing", 0.01, failing), Periodic("working", 0.01, working)]
    work = asyncio.create_task(PeriodicWork(Store(pools), jobs).run())
    try:
        # The result of the last run may not be stored when the work ends.
        await poll_until(seen, lambda runs: min(runs["failing"], runs["working"]) >= 4)
        assert not work.done()
    finally:
        await cancel_and_wait(work)
        await pools.close()
    # It may not be counted either, because the work may end while its lock is released.
    assert runs["failing"] - counted("failing") in (0, 1)
    assert counted("working") == 0
    async with database.system() as sql:
        noted = await sql.fetch("SELECT * FROM periodic_jobs ORDER BY name")
    failed, well = (dict(row) for row in noted)
    assert failed["failures"] >= 3
    assert failed["failing_since"] < failed.pop("last_failure_at")
    assert (failed["name"], failed["last_failure"], failed["last_success_at"]) == (
        "failing",
        "ValueError",
        None,
    )
    assert (well["name"], well["failures"], well["failing_since"], well["last_failure"]) == (
        "working",
        0,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        (OSError(errno.ENOTCONN, "a file system is gone"), "OSError"),
        (ConnectionResetError("by somebody else"), "ConnectionResetError"),
        (TimeoutError(), "TimeoutError"),
        (asyncpg.ConnectionDoesNotExistError("the database's"), "DATABASE_UNAVAILABLE"),
        (PoolClosedError(), "DATABASE_UNAVAILABLE"),
    ],
)
async def test_errors_outside_the_database_are_not_stored_as_database_errors(
    database: Database, error: Exception, noted: str
) -> None:
    async def failing() -> None:
        raise error

    async def last_failure() -> object:
        async with database.system() as sql:
            return await sql.fetchval("SELECT last_failure FROM periodic_jobs")

    pools = Pools.connect(settings_of(database))
    work = asyncio.create_task(PeriodicWork(Store(pools), [Periodic("failing", 3600, failing)]).run())
    try:
        assert await poll_until(last_failure) == noted
    finally:
        await cancel_and_wait(work)
        await pools.close()


async def test_every_job_reports_an_unavailable_database(database: Database) -> None:
    nobody = "postgresql://nobody@127.0.0.1:1/nothing"
    settings = settings_of(
        database, database_url=nobody, system_database_url=nobody, maintenance_database_url=nobody
    )
    pools = Pools.connect(settings)
    store = Store(pools)
    try:
        for job in all_jobs(store, settings):
            with pytest.raises(Unavailable) as refused:
                await job.job()
            assert refused.value.reason == "DATABASE_UNAVAILABLE", job.name
    finally:
        await pools.close()


async def test_a_job_that_works_again_is_no_longer_failing(database: Database) -> None:
    pools = Pools.connect(settings_of(database))
    store = Store(pools)
    try:
        for failure in ("FIRST", "SECOND", ""):
            await periodic.note_run(store, "job", failure)
        async with database.system() as sql:
            row = await sql.fetchrow("SELECT * FROM periodic_jobs")
        assert (row["failures"], row["failing_since"], row["last_failure"]) == (0, None, "SECOND")
        assert row["last_success_at"] > row["last_failure_at"]
    finally:
        await pools.close()


async def nobody_lacks(_sequence: int) -> bool:
    return True


def all_jobs(store: Store, settings: Settings) -> list[Periodic]:
    """Returns the jobs of the store, and those of the nouns that drop or roll up rows.

    The log has its own keys.
    """
    identity = LogIdentity.load(Settings(), KeyRing((bytes(32),)))
    return [
        *standard_jobs(store, settings, NOUN_TABLES),
        *audit_jobs(store, settings, identity, nobody_lacks),
        *metrics_jobs(store, settings),
    ]


class Ahead:
    """A clock that is two years ahead."""

    @staticmethod
    def now(zone: tzinfo) -> datetime:
        return datetime.now(zone) + timedelta(days=730)


async def test_a_clock_that_is_ahead_drops_no_valid_partition(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = Pools.connect(settings_of(database))
    store = Store(pools)
    monkeypatch.setattr(periodic, "datetime", Ahead)
    try:
        async with database.owner() as owner:
            before = await owner.fetch("SELECT relname FROM pg_class ORDER BY 1")
            with capture_logs() as logs:
                for job in all_jobs(store, settings_of(database)):
                    if job.name.startswith("drop"):
                        await job.job()
            assert await owner.fetch("SELECT relname FROM pg_class ORDER BY 1") == before
    finally:
        await pools.close()
    # A server that other tests share may write log lines about its cluster during that time.
    told = {line["event"] for line in logs if line["log_level"] != "info"}
    assert told == {"the clocks of this server and of the database differ"}


class _Runs:
    """Counts the runs of jobs that do nothing else."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def job(self, name: str) -> Callable[[], Awaitable[None]]:
        """Returns a job that is counted under this name."""

        async def run() -> None:
            self.counts[name] += 1

        return run

    async def seen(self) -> Counter[str]:
        """Returns the counts of all jobs."""
        return self.counts


async def test_jobs_begin_one_after_the_other_at_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "_BETWEEN_SECONDS", 3600.0)
    runs = _Runs()
    pools = Pools.connect(settings_of(database))
    work = PeriodicWork(Store(pools), [Periodic(name, 0.01, runs.job(name)) for name in ("first", "second")])
    running = asyncio.create_task(work.run())
    try:
        await poll_until(runs.seen, lambda counts: counts["first"] >= 5)
        assert runs.counts["second"] == 0
        # A requested job does not wait for its turn.
        work.run_now("second")
        await poll_until(runs.seen, lambda counts: counts["second"] >= 5)
    finally:
        await cancel_and_wait(running)
        await pools.close()


async def test_a_job_with_a_delay_waits_unless_it_is_requested(database: Database) -> None:
    runs = _Runs()
    pools = Pools.connect(settings_of(database))
    periodic = PeriodicWork(
        Store(pools),
        [Periodic("at once", 0.01, runs.job("at once")), Periodic("later", 3600, runs.job("later"), 3600)],
    )
    work = asyncio.create_task(periodic.run())
    try:
        await poll_until(runs.seen, lambda counts: counts["at once"] >= 5)
        assert runs.counts["later"] == 0
        periodic.run_now("later")
        await poll_until(runs.seen, lambda counts: counts["later"] == 1)
    finally:
        await cancel_and_wait(work)
        await pools.close()


def counted(job: str) -> float:
    """Returns the metric of a job."""
    return REGISTRY.get_sample_value("pilothouse_periodic_failures_total", {"job": job}) or 0.0


async def test_a_server_that_ends_while_it_takes_a_lock_reports_no_fault(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection may hold the lock or not: it is closed, and the log does not blame a pooler."""
    execute = Connection.execute
    asked = asyncio.Event()

    async def nothing() -> None: ...

    async def without_the_first_answer(connection: Connection, *given: Any) -> Any:
        if asked.is_set():
            return await execute(connection, *given)
        asked.set()
        raise asyncio.CancelledError

    monkeypatch.setattr(Connection, "execute", without_the_first_answer)
    pools = Pools.connect(settings_of(database))
    try:
        with capture_logs() as logs:
            work = asyncio.create_task(PeriodicWork(Store(pools), [Periodic("job", 3600, nothing)]).run())
            await asked.wait()
            await cancel_and_wait(work)
        assert [each["event"] for each in logs if each["log_level"] == "error"] == []
    finally:
        await pools.close()
