"""Volumes as the reconciler reads and writes them: the cluster's state of their claims, with events.

As with containers, rows are locked, loaded and compared in the transaction that writes them; an observer skips
locked rows, a worker waits for its one. All is set-based.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import orjson
from sqlalchemy import TextClause, text

from pilothouse_server.storage import operations, repository
from pilothouse_server.storage.model import Claims, ObservedVolume, Volume
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class Change(msgspec.Struct, frozen=True):
    """A volume as loaded under lock, and the values to write."""

    volume: Volume
    observed: ObservedVolume
    observed_generation: int


_LOCK_IDS = text(
    "SELECT id FROM volumes WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_FREE_UIDS = text("""
SELECT v.id FROM volumes AS v JOIN namespaces AS n ON n.id = v.namespace_id
WHERE v.uid = ANY(CAST(:uids AS uuid[])) AND n.cluster_name = :cluster_name
ORDER BY v.id FOR NO KEY UPDATE OF v SKIP LOCKED
""")

_WRITE = text("""
UPDATE volumes AS v
SET status = r.status, reason = NULLIF(r.reason, ''), message = NULLIF(r.message, ''),
    capacity = NULLIF(r.capacity, ''), claim_uid = NULLIF(r.claim_uid, ''),
    persistent_volume = NULLIF(r.persistent_volume, ''), claim_storage_class = NULLIF(r.storage_class, ''),
    conditions = r.conditions, observed_generation = r.observed_generation, updated_at = now()
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    id bigint, status text, reason text, message text, capacity text, claim_uid text, persistent_volume text,
    storage_class text, conditions jsonb, observed_generation bigint)
WHERE v.id = r.id
""")

_OF_CLUSTER = text("""
SELECT v.id, v.uid::text AS uid FROM volumes AS v JOIN namespaces AS n ON n.id = v.namespace_id
WHERE n.cluster_name = :cluster_name AND v.type = 'persistent_volume_claim'
""")

_KNOWN_ANYWHERE = text("SELECT uid::text AS uid FROM volumes WHERE uid = ANY(CAST(:uids AS uuid[]))")
_KNOWN = text("""
SELECT v.uid::text AS uid FROM volumes AS v JOIN namespaces AS n ON n.id = v.namespace_id
WHERE v.uid = ANY(CAST(:uids AS uuid[])) AND n.cluster_name = :cluster_name
""")

# Rows that somebody holds are taken in the next round.
_MARK = """
WITH chosen AS (
    SELECT v.id FROM volumes AS v JOIN namespaces AS n ON n.id = v.namespace_id
    WHERE n.cluster_name = :cluster_name AND v.type = 'persistent_volume_claim' AND v.stale_since IS {condition}
    ORDER BY v.id LIMIT :rows FOR NO KEY UPDATE OF v SKIP LOCKED)
UPDATE volumes AS v SET stale_since = {value}
FROM chosen WHERE v.id = chosen.id RETURNING v.id
"""
_MARKS = {
    True: text(
        _MARK.format(
            condition="NULL",
            value="COALESCE((SELECT stale_since FROM clusters WHERE name = :cluster_name), now())",
        )
    ),
    False: text(_MARK.format(condition="NOT NULL", value="NULL")),
}
_REMAINING = {
    stale: text(
        "SELECT 1 FROM volumes AS v JOIN namespaces AS n ON n.id = v.namespace_id "  # noqa: S608 - our own words
        "WHERE n.cluster_name = :cluster_name AND v.type = 'persistent_volume_claim' "
        f"AND v.stale_since IS {'NULL' if stale else 'NOT NULL'} LIMIT 1"
    )
    for stale in (True, False)
}


async def find(transaction: ReadTransaction, volume_id: int) -> Volume | None:
    """Returns the volume; None where it is gone."""
    return await repository.get(transaction, volume_id)


async def lock_id(transaction: Transaction, volume_id: int) -> Volume | None:
    """Locks and returns a volume, waiting for another transaction's lock; None if it is gone."""
    volumes = await _load(transaction, _LOCK_IDS, {"ids": [volume_id]})
    return volumes[0] if volumes else None


async def lock_free_uids(transaction: Transaction, cluster_name: str, uids: Sequence[str]) -> list[Volume]:
    """Locks and returns those volumes of a cluster that nobody holds just now.

    Claims of another cluster may carry their uids.
    """
    return await _load(transaction, _LOCK_FREE_UIDS, {"uids": list(uids), "cluster_name": cluster_name})


async def write(transaction: Transaction, changes: Iterable[Change]) -> None:
    """Writes differences, with their events."""
    changed = [
        each
        for each in changes
        if (each.observed, each.observed_generation)
        != (each.volume.observed, each.volume.observed_generation)
    ]
    if not changed:
        return
    rows = [_row(each) for each in changed]
    await transaction.connection.execute(_WRITE, {"rows": orjson.dumps(rows).decode()})
    for each in changed:
        written = msgspec.structs.replace(
            each.volume,
            observed=each.observed,
            observed_generation=each.observed_generation,
            updated_at=transaction.now,
            row_version=each.volume.row_version + 1,
        )
        transaction.emit(operations.event(written, "modified", each.volume))


async def delete(transaction: Transaction, volume: Volume) -> None:
    """Removes a volume's row for good, with its tombstone event."""
    await repository.delete_volume(transaction, volume.id)
    if volume.owner_id is not None:
        # A pod needs such a claim again.
        none: dict[str, Any] = {"templates": [], "first": 0, "last": -1}
        await repository.note_claims(transaction, Claims(volume.owner_id, volume.namespace_id, none))
    transaction.emit(operations.event(volume, "deleted", volume))


async def of_cluster(transaction: ReadTransaction, cluster_name: str) -> dict[str, int]:
    """Returns uid → id of every volume that is a claim on a cluster."""
    rows = await transaction.connection.execute(_OF_CLUSTER, {"cluster_name": cluster_name})
    return {row.uid: row.id for row in rows}


async def uids_there(transaction: ReadTransaction, cluster_name: str, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are volumes of this cluster."""
    keys = {"uids": list(uids), "cluster_name": cluster_name}
    return {row.uid for row in await transaction.connection.execute(_KNOWN, keys)}


async def known_volume_uids(transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are volumes, on whichever cluster."""
    rows = await transaction.connection.execute(_KNOWN_ANYWHERE, {"uids": list(uids)})
    return {row.uid for row in rows}


async def mark(transaction: Transaction, cluster_name: str, *, stale: bool, rows: int) -> bool:
    """Marks up to `rows` claims of a cluster stale or fresh, with events. True while others remain."""
    marked = await transaction.connection.execute(_MARKS[stale], {"cluster_name": cluster_name, "rows": rows})
    for volume in await repository.get_many(transaction, [row.id for row in marked]):
        transaction.emit(operations.event(volume, "modified", volume))
    remaining = await transaction.connection.execute(_REMAINING[stale], {"cluster_name": cluster_name})
    return remaining.first() is not None


async def _load(transaction: Transaction, lock: TextClause, keys: dict[str, object]) -> list[Volume]:
    rows = await transaction.connection.execute(lock, keys)
    ids = [row.id for row in rows]
    return await repository.get_many(transaction, ids) if ids else []


def _row(change: Change) -> dict[str, Any]:
    observed = change.observed
    return {
        "id": change.volume.id,
        "status": observed.status,
        "reason": observed.reason,
        "message": observed.message,
        "capacity": observed.capacity,
        "claim_uid": observed.claim_uid,
        "persistent_volume": observed.persistent_volume,
        "storage_class": observed.storage_class,
        "conditions": msgspec.to_builtins(observed.conditions),
        "observed_generation": change.observed_generation,
    }
