"""Rows that have had their time are deleted a few at a time, each lot in a transaction of its own.

A delete of all at once would hold locks, a connection and room in the write-ahead log for as long as there are dead
rows: a log-in storm leaves hundreds of thousands of them. A row that a request has locked is left to the next run, so
nothing waits here for anybody. What is deleted is found by an index, the oldest first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from pilothouse_server.store.clock import Clocks
from pilothouse_server.store.unit_of_work import Store

LOT: Final = 1000
# Of each table in one run: what is left comes with the next, in five minutes.
MOST_LOTS: Final = 500
KEYS_KEPT_DAYS: Final = 90
_EARLIER: Final = "CAST(:earlier AS timestamptz)"
_LATER: Final = "CAST(:later AS timestamptz)"


@dataclass(frozen=True, slots=True)
class Dead:
    """The rows of a table under `condition`; `order` is what an index has them by, '' where there are few rows.

    The condition takes the time as `:earlier` and `:later`, and asks for no other.
    """

    table: str
    condition: str
    order: str


def dead(login_memory_days: int) -> tuple[Dead, ...]:
    """What has had its time, of each table."""
    return (
        Dead("idempotency_keys", f"expires_at < {_EARLIER}", "expires_at"),
        Dead("request_claims", f"expires_at < {_EARLIER}", "expires_at"),
        # A refresh token that was used up is known as such until the session would have ended.
        Dead("sessions", f"refresh_expires_at < {_EARLIER} - interval '1 day'", "refresh_expires_at"),
        Dead(
            "api_keys",
            f"least(expires_at, revoked_at) < {_EARLIER} - make_interval(days => {KEYS_KEPT_DAYS})",
            "least(expires_at, revoked_at)",
        ),
        # Those of a clock that was ahead go as well: none lives for more than minutes.
        Dead("login_challenges", _outside("expires_at", "0", "1 hour"), "expires_at"),
        Dead("device_logins", _outside("expires_at", "0", "1 hour"), "expires_at"),
        Dead(
            "user_secrets",
            f"secret_type = 'totp' AND name <> '' AND {_outside('updated_at', '1 hour', '1 hour')}",
            "",
        ),
        # The seed goes with its user at once.
        Dead("recovery_codes", "user_id IN (SELECT id FROM users WHERE deleted_at IS NOT NULL)", ""),
        Dead(
            "login_throttles",
            f"updated_at < {_EARLIER} - interval '1 day' "
            f"AND (locked_until IS NULL OR locked_until < {_EARLIER})",
            "updated_at",
        ),
        Dead(
            "login_origins",
            f"updated_at < {_EARLIER} - make_interval(days => {int(login_memory_days)})",
            "updated_at",
        ),
    )


def _outside(column: str, before: str, after: str) -> str:
    """Longer ago than an interval by the one clock, or further ahead than another by the other."""
    return f"{column} NOT BETWEEN {_EARLIER} - interval '{before}' AND {_LATER} + interval '{after}'"


async def reap(store: Store, tables: tuple[Dead, ...], clocks: Clocks) -> int:
    """Deletes what has had its time by these clocks, and returns how many rows that were.

    Raises:
        Unavailable: the database is away; what was deleted before stays deleted.
    """
    total = 0
    for each in tables:
        for _ in range(MOST_LOTS):
            lot = await _lot(store, each, clocks)
            total += lot
            if lot < LOT:
                break
            # The connection goes back between lots, and whoever waits for one has it first.
            await asyncio.sleep(0)
    return total


async def _lot(store: Store, each: Dead, clocks: Clocks) -> int:
    order = f"ORDER BY {each.order}" if each.order else ""
    statement = text(
        f"WITH gone AS (DELETE FROM {each.table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - the words stand above
        f"SELECT ctid FROM {each.table} WHERE {each.condition} {order} "
        "LIMIT :lot FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"
    )
    times = {"earlier": clocks.earlier, "later": clocks.later}
    parameters = {name: moment for name, moment in times.items() if f":{name}" in each.condition}
    async with store.system_write("periodic") as transaction:
        found = await transaction.connection.execute(statement, {"lot": LOT, **parameters})
        deleted: int = found.scalar_one()
        return deleted
