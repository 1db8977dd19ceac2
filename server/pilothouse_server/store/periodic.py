"""Periodic jobs, such as partitions, maintenance of tables, and expiry.

Every server runs this. An advisory lock lets one server at a time do a job; the others skip it. All jobs are
idempotent. A job that fails does not stop the others: the failure is logged, counted and stored for
`GetDatabaseStats`, and the job is tried again after its period.

The lock belongs to a session, not to a transaction. A job may take hours, and a transaction that is open for so long
has a snapshot (`backend_xmin`), so that VACUUM removes no row that died since: a table of 400 rows that changes grew to
80 MB within half an hour. So the lock needs a connection that does not go through a transaction pooler, as the
connections of the maintenance login do not. If the session is lost, the lock is lost as well, and another server may
begin the same job.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from pilothouse_server.errors import PilothouseError
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.settings.model import Settings
from pilothouse_server.store import clock_skew, expiry
from pilothouse_server.store.clock import Clocks
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.errors import CONNECTION_LOST, connecting, of_the_driver
from pilothouse_server.store.maintenance import Maintenance
from pilothouse_server.store.noun_tables import NounTables
from pilothouse_server.store.partitions import PartitionBusyError, Partitions
from pilothouse_server.store.pool import Pool
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

# Stores the result of a run: one row for each job.
_NOTE = text("""
INSERT INTO periodic_jobs AS job (name, failures, failing_since, last_failure_at, last_failure, last_success_at)
SELECT :name, CASE WHEN failed THEN 1 ELSE 0 END, CASE WHEN failed THEN now() END, CASE WHEN failed THEN now() END,
       nullif(:failure, ''), CASE WHEN failed THEN NULL ELSE now() END
FROM (SELECT CAST(:failure AS text) <> '' AS failed) AS run
ON CONFLICT (name) DO UPDATE
SET failures = CASE WHEN EXCLUDED.failures = 0 THEN 0 ELSE job.failures + 1 END,
    failing_since = CASE WHEN EXCLUDED.failures = 0 THEN NULL ELSE coalesce(job.failing_since, now()) END,
    last_failure_at = coalesce(EXCLUDED.last_failure_at, job.last_failure_at),
    last_failure = coalesce(EXCLUDED.last_failure, job.last_failure),
    last_success_at = coalesce(EXCLUDED.last_success_at, job.last_success_at)
""")

Job = Callable[[], Awaitable[object]]

MAKE_PARTITIONS = "make partitions ahead"
MAINTENANCE = "analyse, vacuum and reindex"
# How often maintenance checks what is due, and the delay of the first check, which keeps it out of the server's start.
_CARE_LOOK_SECONDS = 3600.0
_CARE_DELAY_SECONDS = 900.0
_CLOCKS_APART_SECONDS = 60.0
# At a start the jobs begin this far apart: all together would open two connections each, while the first
# calls arrive.
_BETWEEN_SECONDS = 0.5
_UNLOCK_SECONDS = 5.0
_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
_UNLOCK = text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))")
FAILED = Counter("pilothouse_periodic_failures_total", "Runs of periodic work that failed.", ("job",))


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job, its name, the seconds between two runs, and the delay of the first run."""

    name: str
    period_seconds: float
    job: Job
    delay_seconds: float = 0.0


class PeriodicWork:
    """Runs jobs, each on its own period, one server at a time."""

    def __init__(self, store: Store, jobs: list[Periodic]) -> None:
        self._store = store
        self._jobs = jobs
        self._wanted = {job.name: asyncio.Event() for job in jobs}

    def run_now(self, name: str) -> None:
        """Runs a job immediately, or again once its current run ends."""
        self._wanted[name].set()

    async def run(self) -> None:
        """Runs until cancelled."""
        places = count()
        async with asyncio.TaskGroup() as group:
            for job in self._jobs:
                delay = job.delay_seconds or next(places) * _BETWEEN_SECONDS
                group.create_task(self._repeat(job, delay), name=job.name)

    async def _repeat(self, periodic: Periodic, delay_seconds: float) -> None:
        await self._pause(periodic.name, delay_seconds)
        while True:
            await self._once(periodic)
            await self._pause(periodic.name, periodic.period_seconds)

    async def _pause(self, name: str, seconds: float) -> None:
        """Returns after `seconds`, or when the job is requested."""
        wanted = self._wanted[name]
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await wanted.wait()
            except TimeoutError:
                pass
        wanted.clear()

    async def _once(self, periodic: Periodic) -> None:
        """Runs the job unless another server does; counts, logs and stores a failure."""
        try:
            if not await self._run_alone(periodic):
                return
        except PartitionBusyError as error:
            failure = "PARTITION_BUSY"
            log.warning("periodic work waits for a lock", job=periodic.name, error=str(error))
        except PilothouseError as error:
            failure = error.reason
            log.warning("periodic work failed", job=periodic.name, reason=failure)
        except Exception as error:  # noqa: BLE001 - a job that fails must not end the others
            failure = type(error).__name__
            log.error("periodic work failed", job=periodic.name, error=failure)
        else:
            failure = ""
        if failure:
            FAILED.labels(periodic.name).inc()
        try:
            await note_run(self._store, periodic.name, failure)
        except PilothouseError as error:
            log.warning("a run of periodic work cannot be recorded", job=periodic.name, reason=error.reason)

    async def _run_alone(self, periodic: Periodic) -> bool:
        """Runs the job; returns False if another server runs it."""
        with of_the_driver():
            async with _locked(self._store.database.maintenance, f"periodic/{periodic.name}") as ours:
                if ours:
                    await periodic.job()
                return ours


@asynccontextmanager
async def _locked(pool: Pool, name: str) -> AsyncIterator[bool]:
    """Yields whether the advisory lock of this name was free.

    If so, a session holds it until the end of the block.
    """
    with connecting():
        connection = await pool.take()
    ours: bool | None = None
    try:
        with connecting():
            ours = bool((await connection.execute(_LOCK, {"name": name})).scalar_one())
        yield ours
    finally:
        if ours is False:
            pool.give(connection)
        else:
            await uncancelled(_unlock(pool, connection, name, is_held=bool(ours)))


async def _unlock(pool: Pool, connection: Connection, name: str, *, is_held: bool) -> None:
    """Unlocks and returns the session to the pool.

    A session that may still hold the lock is closed, which releases it. `is_held` is False if the response to the lock
    statement was not received, as at a shutdown: the lock may not be held then.
    """
    try:
        async with asyncio.timeout(_UNLOCK_SECONDS):
            unlocked = (await connection.execute(_UNLOCK, {"name": name})).scalar_one()
    except CONNECTION_LOST:
        unlocked = None
    if unlocked:
        pool.give(connection)
        return
    await pool.discard(connection)
    if unlocked is False and is_held:
        log.error(
            "the lock of periodic work is held by another session: MAINTENANCE_DATABASE_URL must not point to a "
            "transaction pooler",
            lock=name,
        )


def standard_jobs(store: Store, settings: Settings, nouns: Sequence[NounTables]) -> list[Periodic]:
    """Returns the jobs that every database needs.

    They work on the store's own tables and on those of the nouns.
    """
    partitioned = [scheme for noun in nouns for scheme in noun.partitioned]
    partitions = Partitions(store.database.maintenance, of_nouns=partitioned)
    expiring = [*expiry.OWN, *(rows for noun in nouns for rows in noun.expiring)]
    repairs = [*clock_skew.OWN, *(repair for noun in nouns for repair in noun.skew_repairs)]

    async def drop_events() -> None:
        kept = timedelta(hours=settings.event_retention_hours)
        await partitions.drop_events_below(
            await partitions.first_event_since(await earlier_now(store) - kept)
        )

    async def maintain() -> None:
        period = timedelta(hours=settings.care_period_hours)
        await Maintenance(store.database.maintenance).round(period)

    async def expire() -> None:
        await expiry.delete_expired(store, expiring, settings, await clocks(store))

    async def repair() -> None:
        await clock_skew.repair(store, repairs, settings, await clocks(store))

    caring = (
        [Periodic(MAINTENANCE, _CARE_LOOK_SECONDS, maintain, _CARE_DELAY_SECONDS)]
        if settings.care_period_hours
        else []
    )
    return [
        *caring,
        Periodic(MAKE_PARTITIONS, 600.0, partitions.make_ahead),
        Periodic("drop old events", 600.0, drop_events),
        Periodic("remove what has expired", 300.0, expire),
        Periodic("mend times far ahead", clock_skew.REPAIR_SECONDS, repair),
    ]


async def clocks(store: Store) -> Clocks:
    """Returns the time by this server's clock and by the database's.

    Raises Unavailable.
    """
    async with store.system_read() as transaction:
        theirs = await transaction.moment()
    ours = datetime.now(UTC)
    return Clocks(min(ours, theirs), max(ours, theirs))


async def earlier_now(store: Store) -> datetime:
    """Returns the earlier of this server's and the database's time.

    A clock that is ahead would drop rows too early. Raises Unavailable.
    """
    found = await clocks(store)
    apart = (found.later - found.earlier).total_seconds()
    if apart > _CLOCKS_APART_SECONDS:
        log.warning("the clocks of this server and of the database differ", seconds=round(apart))
    return found.earlier


async def run_as_owner(store: Store, statement: str) -> None:
    """Runs a statement as the owner of the schema.

    The maintenance login sets that role for one transaction.
    """
    with connecting():
        async with store.database.maintenance.transaction() as connection:
            await connection.command("SET LOCAL ROLE pilothouse_owner")
            await connection.execute(text(statement))


async def note_run(store: Store, name: str, failure: str) -> None:
    """Stores the result of a run, which all servers share.

    `failure` is '' after a success. Raises Unavailable.
    """
    async with store.system_write("periodic") as transaction:
        await transaction.connection.execute(_NOTE, {"name": name, "failure": failure[:100]})
