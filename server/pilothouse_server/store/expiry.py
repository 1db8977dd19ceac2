"""Expiry: deletes expired rows in batches of a thousand, one transaction each.

One delete of all rows would hold locks, a connection and space in the write-ahead log for a long time: a log-in storm
leaves hundreds of thousands of rows. A row that a request has locked is left to the next run, so this waits for no
request. An index finds the rows, oldest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from sqlalchemy import text

from pilothouse_server.settings.model import Settings
from pilothouse_server.store.clock import Clocks
from pilothouse_server.store.noun_tables import EARLIER, ExpiringRows, parameters_of
from pilothouse_server.store.unit_of_work import Store

LOT: Final = 1000
# The most batches of one table in one run. The next run, five minutes later, deletes the rest.
MOST_LOTS: Final = 500


# The store's own rows that expire.
OWN: Final = (
    ExpiringRows("idempotency_keys", f"expires_at < {EARLIER}", "expires_at"),
    ExpiringRows("request_claims", f"expires_at < {EARLIER}", "expires_at"),
)


async def delete_expired(
    store: Store, tables: Iterable[ExpiringRows], settings: Settings, clocks: Clocks
) -> int:
    """Deletes the rows that have expired by these clocks; returns their number.

    Raises:
        Unavailable: the database is unreachable. Rows that were deleted before stay deleted.
    """
    total = 0
    for each in tables:
        for _ in range(MOST_LOTS):
            lot = await _lot(store, each, settings, clocks)
            total += lot
            if lot < LOT:
                break
            # The connection returns to the pool between batches, so that a call that waits for one gets it first.
            await asyncio.sleep(0)
    return total


async def _lot(store: Store, each: ExpiringRows, settings: Settings, clocks: Clocks) -> int:
    order = f"ORDER BY {each.order}" if each.order else ""
    statement = (
        f"WITH expired AS (DELETE FROM {each.table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - constants of the nouns
        f"SELECT ctid FROM {each.table} WHERE {each.condition} {order} "
        "LIMIT :lot FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM expired"
    )
    parameters = {"lot": LOT, **parameters_of(each.condition, settings, clocks)}
    async with store.system_write("periodic") as transaction:
        found = await transaction.connection.execute(text(statement), parameters)
        deleted: int = found.scalar_one()
        return deleted
