"""Clock-skew repair: times further ahead than any code sets them count as expired.

If the database's clock was ahead for a while, some stored times stay far in the future after the clock is right again:
work stays leased, accounts stay locked, tokens stay valid. A correct clock can set each kind of time only to a limited
distance from now. The repair ends or shortens a time that lies further ahead, and logs that, because an operator should
check the clock. "Ahead" is measured from the later of two clocks, the database's and this server's: if the database's
clock is behind, times that were written earlier are right. The holders of cluster leases check these by their own
clocks (`reconcile/queue/leadership.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog
from sqlalchemy import text

from pilothouse_server.settings.model import Settings
from pilothouse_server.store.clock import Clocks
from pilothouse_server.store.noun_tables import SkewRepair, parameters_of
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

REPAIR_SECONDS = 30.0
# A request is claimed for at most this long.
LONGEST_CLAIM_SECONDS = 600.0

# A lease on work lasts a few seconds. Finished work may be due in a day, but a row whose `updated_at` is in the future
# was written by a wrong clock. Locked rows are left to the next run. The former leaseholder finds its lease lost, and
# writes nothing.
_WORK = """
WITH far AS (
    SELECT resource_type, resource_id FROM reconcile_work
    WHERE leased_until > clock_timestamp() + interval '1 minute'
       OR updated_at > clock_timestamp() + interval '1 minute'
    ORDER BY resource_type, resource_id FOR UPDATE SKIP LOCKED)
UPDATE reconcile_work AS work
SET due_at = clock_timestamp(), lease_owner = NULL, leased_until = NULL, updated_at = clock_timestamp()
FROM far WHERE work.resource_type = far.resource_type AND work.resource_id = far.resource_id
RETURNING 1
"""
_CLAIMS = (
    "DELETE FROM request_claims WHERE expires_at > CAST(:later AS timestamptz) "  # noqa: S608 - our constant
    f"+ interval '{LONGEST_CLAIM_SECONDS + 60} seconds' RETURNING 1"
)
# Responses are kept for a day (`retention` of `rpc.idempotency`).
_KEYS = """
UPDATE idempotency_keys
SET expires_at = CAST(:later AS timestamptz) + interval '24 hours'
WHERE expires_at > CAST(:later AS timestamptz) + interval '24 hours 1 minute'
RETURNING 1
"""
# The store's own times.
OWN: Final = (
    SkewRepair("work", _WORK),
    SkewRepair("request claims", _CLAIMS),
    SkewRepair("replayed responses", _KEYS),
)


async def repair(
    store: Store, repairs: Iterable[SkewRepair], settings: Settings, clocks: Clocks
) -> dict[str, int]:
    """Ends times that lie too far ahead of both clocks; returns their number by kind.

    Raises Unavailable.
    """
    repaired = {}
    for each in repairs:
        async with store.system_write("periodic") as transaction:
            found = await transaction.connection.execute(
                text(each.statement), parameters_of(each.statement, settings, clocks)
            )
            if count := len(found.all()):
                repaired[each.kind] = count
    if repaired:
        log.warning(
            "times too far ahead were corrected: check the clock of the database's machine",
            **{kind.replace(" ", "_"): count for kind, count in repaired.items()},
        )
    return repaired
