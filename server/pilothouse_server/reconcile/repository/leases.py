"""Leases: work that one server at a time may do, such as observing a cluster.

A lease is taken for some seconds under a new epoch and renewed under the same. A holder that was frozen past the end
finds its epoch replaced: `hold` inside the writing transaction makes the database itself refuse what it would write.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import text

from pilothouse_server.store.unit_of_work import Transaction


class Lease(msgspec.Struct, frozen=True):
    name: str
    owner: str
    epoch: int


_TAKE = text("""
INSERT INTO leases AS lease (name, owner, epoch, expires_at)
VALUES (:name, :owner, 1, clock_timestamp() + make_interval(secs => :seconds))
ON CONFLICT (name) DO UPDATE
SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at,
    epoch = lease.epoch + CASE WHEN lease.owner IS DISTINCT FROM EXCLUDED.owner THEN 1 ELSE 0 END
WHERE lease.owner IS NOT DISTINCT FROM EXCLUDED.owner OR lease.expires_at <= clock_timestamp()
RETURNING epoch
""")

_HOLD = text("SELECT 1 FROM leases WHERE name = :name AND owner = :owner AND epoch = :epoch FOR SHARE")

_GIVE_UP = text(
    "UPDATE leases SET owner = NULL, expires_at = clock_timestamp() "
    "WHERE name = :name AND owner = :owner AND epoch = :epoch"
)


async def take(transaction: Transaction, name: str, owner: str, seconds: float) -> Lease | None:
    """Takes or renew a lease; None while another holds it. `owner` must be unique to the process."""
    row = (
        await transaction.connection.execute(_TAKE, {"name": name, "owner": owner, "seconds": seconds})
    ).first()
    return None if row is None else Lease(name, owner, row.epoch)


async def hold(transaction: Transaction, lease: Lease) -> bool:
    """Keeps the lease from changing hands until the transaction ends. False where it is lost."""
    found = await transaction.connection.execute(_HOLD, _key(lease))
    return found.first() is not None


async def give_up(transaction: Transaction, lease: Lease) -> None:
    """Lets another server take it at once."""
    await transaction.connection.execute(_GIVE_UP, _key(lease))


def _key(lease: Lease) -> dict[str, object]:
    return {"name": lease.name, "owner": lease.owner, "epoch": lease.epoch}
