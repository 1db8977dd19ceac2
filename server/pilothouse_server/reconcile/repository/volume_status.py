"""The rows of volumes as the reconciler reads and writes them: the cluster's state of their claims."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import text

from pilothouse_server.reconcile.repository.observed_rows import ObservedRows
from pilothouse_server.storage import operations, repository
from pilothouse_server.storage.model import Claims, ObservedVolume, Volume
from pilothouse_server.store.unit_of_work import Transaction

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


def _row(_volume: Volume, observed: ObservedVolume) -> dict[str, Any]:
    return {
        "status": observed.status,
        "reason": observed.reason,
        "message": observed.message,
        "capacity": observed.capacity,
        "claim_uid": observed.claim_uid,
        "persistent_volume": observed.persistent_volume,
        "storage_class": observed.storage_class,
        "conditions": msgspec.to_builtins(observed.conditions),
    }


VOLUMES: ObservedRows[Volume, ObservedVolume] = ObservedRows(
    "volumes",
    repository.get,
    repository.get_many,
    operations.event,
    _WRITE,
    _row,
    condition="r.type = 'persistent_volume_claim'",
)


async def delete(transaction: Transaction, volume: Volume) -> None:
    """Removes a volume's row permanently, with its tombstone event."""
    await repository.delete_volume(transaction, volume.id)
    if volume.owner_id is not None:
        # Pods of its container may still need the claim: the note makes another transaction write a row for it again.
        none: dict[str, Any] = {"templates": [], "first": 0, "last": -1}
        await repository.note_claims(transaction, Claims(volume.owner_id, volume.namespace_id, none))
    transaction.emit(operations.event(volume, "deleted", volume))
