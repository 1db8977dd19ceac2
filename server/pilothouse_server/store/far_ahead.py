"""Times that lie further ahead than anything sets them are taken for over.

A database whose clock was ahead for a while leaves times behind that come only much later, once the clock is right
again: work that is leased until then, accounts that are locked, tokens that are valid. Whoever wrote them meant a
moment from then, so each kind has a length that it cannot have by right. What lies beyond it is mended, and that is
logged, because the clock should be looked at. What is deleted or shortened so lies ahead of the later of two clocks,
the database's and this server's: where the database's is behind, what was written before is right. (Leases on a
cluster are looked after by those who want them, by their own clocks: `reconcile/queue/leadership.py`.)
"""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy import text

from pilothouse_server.settings.model import Settings
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

MENDING_SECONDS = 30.0

# A lease on work is a few seconds long. When work is due that is done may be a day away; but what was noted at a time
# that is yet to come was noted by a wrong clock. Rows that somebody holds are left for the next time. Who had leased
# the row finds the lease lost, and writes nothing.
_WORK = text("""
WITH far AS (
    SELECT resource_type, resource_id FROM reconcile_work
    WHERE leased_until > clock_timestamp() + interval '1 minute'
       OR updated_at > clock_timestamp() + interval '1 minute'
    ORDER BY resource_type, resource_id FOR UPDATE SKIP LOCKED)
UPDATE reconcile_work AS work
SET due_at = clock_timestamp(), lease_owner = NULL, leased_until = NULL, updated_at = clock_timestamp()
FROM far WHERE work.resource_type = far.resource_type AND work.resource_id = far.resource_id
RETURNING 1
""")
_CLAIMS = text(
    "DELETE FROM request_claims "
    "WHERE expires_at > CAST(:later AS timestamptz) "
    "+ make_interval(secs => CAST(:claim_seconds AS float8) + 60) RETURNING 1"
)
_THROTTLES = text(
    "UPDATE login_throttles SET locked_until = NULL, updated_at = clock_timestamp() "
    "WHERE locked_until > clock_timestamp() + make_interval(secs => CAST(:lock_seconds AS float8) + 60) "
    "OR updated_at > clock_timestamp() + interval '1 minute' RETURNING 1"
)
# A session goes on, but for no longer than one that begins now.
_SESSIONS = text("""
UPDATE sessions
SET access_expires_at = least(access_expires_at,
        CAST(:later AS timestamptz) + make_interval(secs => CAST(:access_seconds AS float8))),
    refresh_expires_at = least(refresh_expires_at,
        CAST(:later AS timestamptz) + make_interval(secs => CAST(:refresh_seconds AS float8))),
    created_at = least(created_at, CAST(:later AS timestamptz))
WHERE access_expires_at > CAST(:later AS timestamptz) + make_interval(secs => CAST(:access_seconds AS float8) + 60)
   OR refresh_expires_at > CAST(:later AS timestamptz) + make_interval(secs => CAST(:refresh_seconds AS float8) + 60)
   OR created_at > CAST(:later AS timestamptz) + interval '1 minute'
RETURNING 1
""")
_KEYS = text("""
UPDATE idempotency_keys SET expires_at = CAST(:later AS timestamptz) + make_interval(hours => :key_hours)
WHERE expires_at > CAST(:later AS timestamptz) + make_interval(hours => :key_hours, mins => 1) RETURNING 1
""")
_KINDS = {
    "work": _WORK,
    "request claims": _CLAIMS,
    "locked accounts": _THROTTLES,
    "sessions": _SESSIONS,
    "answers to replays": _KEYS,
}
# What nobody claims a request or locks an account for longer than; who does so keeps to it.
LONGEST_CLAIM_SECONDS = 600.0
LONGEST_LOCK_SECONDS = 900.0


async def mend(store: Store, settings: Settings, later: datetime) -> dict[str, int]:
    """Mends times that lie too far ahead, also of the `later` of two clocks; returns how many of each kind.

    Raises Unavailable.
    """
    parameters = {
        "later": later,
        "claim_seconds": LONGEST_CLAIM_SECONDS,
        "lock_seconds": LONGEST_LOCK_SECONDS,
        "access_seconds": float(settings.session_access_seconds),
        "refresh_seconds": float(settings.session_refresh_seconds),
        "key_hours": settings.idempotency_retention_hours,
    }
    mended = {}
    for kind, statement in _KINDS.items():
        async with store.system_write("periodic") as transaction:
            found = await transaction.connection.execute(
                statement, {name: value for name, value in parameters.items() if f":{name}" in statement.text}
            )
            if count := len(found.all()):
                mended[kind] = count
    if mended:
        log.warning(
            "times far ahead were taken for over: was the database's clock wrong?",
            **{kind.replace(" ", "_"): count for kind, count in mended.items()},
        )
    return mended
