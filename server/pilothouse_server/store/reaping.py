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

from pilothouse_server.store.unit_of_work import Store

LOT: Final = 1000
# Of each table in one run: what is left comes with the next, in five minutes.
MOST_LOTS: Final = 500


@dataclass(frozen=True, slots=True)
class Dead:
    """The rows of a table under `condition`; `order` is what an index has them by, '' where there are few rows."""

    table: str
    condition: str
    order: str


def dead(login_memory_days: int) -> tuple[Dead, ...]:
    """What has had its time, of each table."""
    return (
        Dead("idempotency_keys", "expires_at < now()", "expires_at"),
        Dead("request_claims", "expires_at < now()", "expires_at"),
        # A refresh token that was used up is known as such until the session would have ended.
        Dead("sessions", "refresh_expires_at < now() - interval '1 day'", "refresh_expires_at"),
        Dead(
            "api_keys",
            "least(expires_at, revoked_at) < now() - interval '1 day'",
            "least(expires_at, revoked_at)",
        ),
        # Those of a clock that was ahead go as well: none lives for more than minutes.
        Dead("login_challenges", "expires_at NOT BETWEEN now() AND now() + interval '1 hour'", "expires_at"),
        Dead("device_logins", "expires_at NOT BETWEEN now() AND now() + interval '1 hour'", "expires_at"),
        Dead(
            "user_secrets",
            "secret_type = 'totp' AND name <> '' AND updated_at NOT BETWEEN now() - interval '1 hour'"
            " AND now() + interval '1 hour'",
            "",
        ),
        # The seed goes with its user at once.
        Dead("recovery_codes", "user_id IN (SELECT id FROM users WHERE deleted_at IS NOT NULL)", ""),
        Dead(
            "login_throttles",
            "updated_at < now() - interval '1 day' AND (locked_until IS NULL OR locked_until < now())",
            "updated_at",
        ),
        Dead(
            "login_origins",
            f"updated_at < now() - make_interval(days => {int(login_memory_days)})",
            "updated_at",
        ),
    )


async def reap(store: Store, tables: tuple[Dead, ...]) -> int:
    """Deletes what has had its time, and returns how many rows that were.

    Raises:
        Unavailable: the database is away; what was deleted before stays deleted.
    """
    total = 0
    for each in tables:
        for _ in range(MOST_LOTS):
            lot = await _lot(store, each)
            total += lot
            if lot < LOT:
                break
            # The connection goes back between lots, and whoever waits for one has it first.
            await asyncio.sleep(0)
    return total


async def _lot(store: Store, each: Dead) -> int:
    order = f"ORDER BY {each.order}" if each.order else ""
    statement = text(
        f"WITH gone AS (DELETE FROM {each.table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - the words stand above
        f"SELECT ctid FROM {each.table} WHERE {each.condition} {order} "
        "LIMIT :lot FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"
    )
    async with store.system_write("periodic") as transaction:
        deleted: int = (await transaction.connection.execute(statement, {"lot": LOT})).scalar_one()
        return deleted
