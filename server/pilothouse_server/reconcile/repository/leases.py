"""Leases: work that one server at a time may do, such as observing a cluster.

A lease is taken for some seconds under a new epoch and renewed under the same. A holder that was frozen past the end
finds its epoch replaced: `hold` inside the writing transaction makes the database itself refuse its writes.

The end of a lease is a time of the database's clock, which may have been wrong when it was written. So a lease without
an owner is free, however late its end. A server that has seen a lease stay unrenewed for longer than its length, by its
own clock, may take it if it is still as that server read it (`unrenewed`).
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import text

from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class Lease(msgspec.Struct, frozen=True):
    name: str
    owner: str
    epoch: int


class SeenLease(msgspec.Struct, frozen=True):
    """A lease as it was read; each renewal changes it.

    `owner` is None if the lease is free. `ahead_seconds`: until its end, by the database's clock.
    """

    owner: str | None
    epoch: int
    expires_at: datetime
    ahead_seconds: float

    def is_as(self, before: SeenLease) -> bool:
        """Returns whether the lease was neither renewed nor held by another server since `before`."""
        return (self.epoch, self.expires_at) == (before.epoch, before.expires_at)

    def is_held_from(self, owner: str) -> bool:
        """Returns whether a server other than `owner` holds the lease, by the database's clock."""
        return self.owner not in (None, owner) and self.ahead_seconds > 0


_TAKE = text("""
INSERT INTO leases AS lease (name, owner, epoch, expires_at)
VALUES (:name, :owner, 1, clock_timestamp() + make_interval(secs => :seconds))
ON CONFLICT (name) DO UPDATE
SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at,
    epoch = lease.epoch + CASE WHEN lease.owner IS DISTINCT FROM EXCLUDED.owner THEN 1 ELSE 0 END
WHERE (lease.owner IS NOT DISTINCT FROM EXCLUDED.owner OR lease.owner IS NULL
       OR lease.expires_at <= clock_timestamp()
       OR (lease.epoch, lease.expires_at) = (CAST(:epoch AS bigint), CAST(:expires_at AS timestamptz)))
  AND lease.epoch = coalesce(CAST(:only_epoch AS bigint), lease.epoch)
RETURNING epoch
""")

_SEE = text("""
SELECT owner, epoch, expires_at,
       CAST(EXTRACT(epoch FROM expires_at - clock_timestamp()) AS double precision) AS ahead_seconds
FROM leases WHERE name = :name
""")

_HOLD = text("SELECT 1 FROM leases WHERE name = :name AND owner = :owner AND epoch = :epoch FOR SHARE")

_GIVE_UP = text(
    "UPDATE leases SET owner = NULL, expires_at = clock_timestamp() "
    "WHERE name = :name AND owner = :owner AND epoch = :epoch"
)


async def take(
    transaction: Transaction,
    name: str,
    owner: str,
    seconds: float,
    *,
    unrenewed: SeenLease | None = None,
    only_epoch: int | None = None,
) -> Lease | None:
    """Takes or renews a lease; returns None while another holds it.

    `owner` must be unique to the process. `unrenewed` is treated as expired if the lease is still in that state. With
    `only_epoch` the lease is taken only if nobody has held it since that epoch.
    """
    parameters = {
        "name": name,
        "owner": owner,
        "seconds": seconds,
        "epoch": None if unrenewed is None else unrenewed.epoch,
        "expires_at": None if unrenewed is None else unrenewed.expires_at,
        "only_epoch": only_epoch,
    }
    row = (await transaction.connection.execute(_TAKE, parameters)).first()
    return None if row is None else Lease(name, owner, row.epoch)


async def see(transaction: ReadTransaction, name: str) -> SeenLease | None:
    """Returns the present lease; None if no server has ever held it."""
    row = (await transaction.connection.execute(_SEE, {"name": name})).first()
    return None if row is None else SeenLease(row.owner, row.epoch, row.expires_at, row.ahead_seconds)


async def hold(transaction: Transaction, lease: Lease) -> bool:
    """Locks the lease until the transaction ends; returns False if it is lost."""
    found = await transaction.connection.execute(_HOLD, _key(lease))
    return found.first() is not None


async def give_up(transaction: Transaction, lease: Lease) -> None:
    """Releases the lease, so that another server can take it immediately."""
    await transaction.connection.execute(_GIVE_UP, _key(lease))


def _key(lease: Lease) -> dict[str, object]:
    return {"name": lease.name, "owner": lease.owner, "epoch": lease.epoch}
