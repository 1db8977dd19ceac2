"""Rows that were written while the database's clock was ahead count as expired, and the repair is logged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from structlog.testing import capture_logs

from pilothouse_server.app import NOUN_TABLES
from pilothouse_server.settings.model import Settings
from pilothouse_server.store import clock_skew
from pilothouse_server.store.clock import Clocks
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database
from tests.identity.server import settings_of
from tests.migrations.filling import fill

AHEAD = timedelta(days=730)
# Table -> the columns that are set, and how far ahead they may validly be.
LEFT: dict[str, tuple[str, timedelta]] = {
    "reconcile_work": ("due_at, leased_until", timedelta(seconds=30)),
    "request_claims": ("expires_at", timedelta(minutes=9)),
    "login_throttles": ("locked_until", timedelta(minutes=14)),
    "sessions": ("refresh_expires_at, access_expires_at", timedelta(minutes=10)),
    "idempotency_keys": ("expires_at", timedelta(hours=23)),
}


async def set_ahead(sql: asyncpg.Connection, ahead: timedelta | None) -> None:
    """Sets all these times to `ahead` from now, or, if it is None, as far ahead as each may validly be."""
    await sql.execute("UPDATE reconcile_work SET lease_owner = 'dead', leased_until = now()")
    for table, (columns, by_right) in LEFT.items():
        values = ", ".join(f"{column} = now() + $1" for column in columns.split(", "))
        await sql.execute(f"UPDATE {table} SET {values}", by_right if ahead is None else ahead)


async def latest(sql: asyncpg.Connection) -> dict[str, datetime]:
    """Returns the latest of these times in each table that has any."""
    found: dict[str, Any] = {
        table: await sql.fetchval(f"SELECT max(greatest({columns})) FROM {table}")
        for table, (columns, _) in LEFT.items()
    }
    return {table: moment for table, moment in found.items() if moment is not None}


async def repair(store: Store, later: datetime) -> dict[str, int]:
    """Runs one repair of the tables of the store and of all nouns."""
    repairs = [*clock_skew.OWN, *(each for noun in NOUN_TABLES for each in noun.skew_repairs)]
    return await clock_skew.repair(store, repairs, Settings(), Clocks(datetime.now(UTC), later))


async def test_times_two_years_ahead_are_expired_and_others_are_kept(database: Database) -> None:
    pools = Pools.connect(settings_of(database))
    store, settings = Store(pools), Settings()
    try:
        async with database.owner() as owner:
            await fill(owner)
            await set_ahead(owner, None)
            before = await latest(owner)
            assert before.keys() == LEFT.keys()
            assert await repair(store, datetime.now(UTC)) == {}
            assert await latest(owner) == before

            await set_ahead(owner, AHEAD)
            with capture_logs() as logs:
                mended = await repair(store, datetime.now(UTC))
            assert len(mended) == len(LEFT)
            (told,) = [line for line in logs if "too far ahead" in line["event"]]
            assert (told["log_level"], told["work"]) == ("warning", mended["work"])
            longest = timedelta(seconds=settings.session_refresh_seconds, minutes=1)
            assert all(moment < datetime.now(UTC) + longest for moment in (await latest(owner)).values())
            work = await owner.fetch("SELECT due_at, lease_owner, leased_until FROM reconcile_work")
            assert {(row["lease_owner"], row["leased_until"]) for row in work} == {(None, None)}
            assert all(row["due_at"] <= datetime.now(UTC) for row in work)
            assert await repair(store, datetime.now(UTC)) == {}
    finally:
        await pools.close()


async def test_a_database_clock_that_went_back_shortens_and_deletes_nothing(database: Database) -> None:
    """The earlier rows are ahead of the database's clock, but valid by the server's clock."""
    pools = Pools.connect(settings_of(database))
    store = Store(pools)
    tables = ("request_claims", "sessions", "idempotency_keys")
    try:
        async with database.owner() as owner:
            await fill(owner)
            await set_ahead(owner, AHEAD)
            before = await latest(owner)
            mended = await repair(store, datetime.now(UTC) + AHEAD)
            after = await latest(owner)
            assert {table: after[table] for table in tables} == {table: before[table] for table in tables}
            assert mended.keys() == {"work", "locked accounts"}
    finally:
        await pools.close()
