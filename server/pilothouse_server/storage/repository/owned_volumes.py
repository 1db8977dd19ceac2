"""SQL for the volumes whose claims StatefulSets create, and for the storage that counts against a quota.

The claims that pods need are passed as templates and ordinals, and the database builds their names, because one
container may need 80,000 claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import TextClause, text

from pilothouse_server.storage.model import Claims, Volume
from pilothouse_server.storage.repository.volumes import get_many, modes_of
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

_NO_OWNER = "owner IS NOT NULL AND owner_id IS NULL"
_HAS_CLAIM_CHANGES = text(
    "SELECT EXISTS (SELECT FROM claim_changes) "  # noqa: S608 - only constants
    f"OR EXISTS (SELECT FROM volumes WHERE {_NO_OWNER})"
)
_TAKE_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('claim_changes', 0))")
_TAKE_CLAIM_CHANGE = text(
    "DELETE FROM claim_changes WHERE id = (SELECT id FROM claim_changes ORDER BY id LIMIT 1) RETURNING container_id"
)
# A deleted container needs no row.
_NOTE_CLAIMS = text(
    "INSERT INTO claim_changes (container_id, namespace_id, storage_bytes) "
    "SELECT c.id, c.namespace_id, missing_claims(c.namespace_id, CAST(CAST(:needed AS text) AS jsonb)) "
    "FROM containers AS c WHERE c.id = :container_id"
)
# The container's row cannot be deleted before the rows of its claims are written.
_LOCK_OWNER = text("SELECT id FROM containers WHERE id = :container_id FOR KEY SHARE")
# Rows are locked before they are read.
_LOCK_WITHOUT_OWNER = text(
    f"SELECT id FROM volumes WHERE {_NO_OWNER} ORDER BY id LIMIT :most FOR NO KEY UPDATE"  # noqa: S608 - only constants
)
_NEEDED = """needed AS (
    SELECT k.template, o AS ordinal, k.prefix || o::text AS name
    FROM jsonb_to_recordset(CAST(CAST(:needed AS text) AS jsonb) -> 'templates') AS k(template text, prefix text),
         generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS o
)"""
_LOCK_NOT_NEEDED = text(
    f"WITH {_NEEDED} SELECT v.id FROM volumes AS v WHERE v.owner_id = :container_id "  # noqa: S608 - only constants
    "AND NOT EXISTS (SELECT FROM needed AS k WHERE k.name = v.kubernetes_name) "
    "ORDER BY v.id LIMIT :most FOR NO KEY UPDATE OF v"
)
_LOCK_OF_OTHERS = text(
    f"WITH {_NEEDED} SELECT v.id FROM volumes AS v "  # noqa: S608 - only constants
    "WHERE v.namespace_id = :namespace_id AND v.type = 'persistent_volume_claim' "
    "AND v.owner_id IS DISTINCT FROM :container_id AND v.kubernetes_name IN (SELECT k.name FROM needed AS k) "
    "ORDER BY v.id LIMIT :most FOR NO KEY UPDATE OF v"
)
_MISSING = text(
    f"WITH {_NEEDED} SELECT k.template, k.name FROM needed AS k "  # noqa: S608 - only constants
    "WHERE NOT EXISTS (SELECT FROM volumes AS v "
    "WHERE v.namespace_id = :namespace_id AND v.kubernetes_name = k.name) "
    "ORDER BY k.ordinal, k.template LIMIT :most"
)
_WITH_WORK = """
), work AS (
    INSERT INTO reconcile_work AS w (resource_type, resource_id, cluster_name, namespace_id, due_at)
    SELECT 'volume', t.id, n.cluster_name, t.namespace_id, clock_timestamp()
    FROM written AS t JOIN namespaces AS n ON n.id = t.namespace_id
    ON CONFLICT (resource_type, resource_id) DO UPDATE SET due_at = LEAST(w.due_at, EXCLUDED.due_at)
) SELECT id FROM written"""
# If a volume of another kind has the name, the claim gets no row.
_INSERT_OWNED = text(
    f"""
WITH written AS (
    INSERT INTO volumes (name, kubernetes_name, namespace_id, owner, owner_id, type, size, storage_class, access_mode,
        labels, annotations, spec, created_by)
    SELECT r.name, r.name, r.namespace_id, r.owner, r.owner_id, 'persistent_volume_claim', r.size, r.storage_class,
        r.access_mode, r.labels, r.annotations, r.spec, c.created_by
    FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
        name text, namespace_id bigint, owner text, owner_id bigint, size text, storage_class text, access_mode text,
        labels jsonb, annotations jsonb, spec jsonb)
    JOIN containers AS c ON c.id = r.owner_id
    ON CONFLICT ON CONSTRAINT uq_volumes_name DO NOTHING RETURNING id, namespace_id{_WITH_WORK}
"""  # noqa: S608 - only constants
)
_UPDATE_OWNERS = text(
    f"""
WITH written AS (
    UPDATE volumes AS v
    SET owner = r.owner, owner_id = r.owner_id, updated_at = now(),
        spec = CASE WHEN r.ends THEN v.spec || '{{"ends_with_claim": true}}' ELSE v.spec - 'ends_with_claim' END
    FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb))
        AS r(id bigint, owner text, owner_id bigint, ends boolean)
    WHERE v.id = r.id RETURNING v.id, v.namespace_id{_WITH_WORK}
"""  # noqa: S608 - only constants
)
_COUNT_STORAGE = text("SELECT count_storage(:namespace_id)")
_COUNTING_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")


async def has_claim_changes(transaction: ReadTransaction) -> bool:
    """Returns whether there are claim changes, or volumes whose container was deleted."""
    return bool((await transaction.connection.execute(_HAS_CLAIM_CHANGES)).scalar_one())


async def take_turn(transaction: Transaction) -> bool:
    """Takes the lock for writing owned volumes until the transaction ends; returns False if another server has it."""
    return bool((await transaction.connection.execute(_TAKE_TURN)).scalar_one())


async def take_claim_change(transaction: Transaction) -> int | None:
    """Removes the oldest claim change and locks its container; returns the container's id, None if there is none."""
    taken: int | None = (await transaction.connection.execute(_TAKE_CLAIM_CHANGE)).scalar_one_or_none()
    if taken is not None:
        await transaction.connection.execute(_LOCK_OWNER, {"container_id": taken})
    return taken


async def note_claims(transaction: Transaction, claims: Claims) -> None:
    """Inserts a claim change for a container, with the bytes of its claims that have no row."""
    values = {"container_id": claims.container_id, "needed": orjson.dumps(claims.needed).decode()}
    await transaction.connection.execute(_NOTE_CLAIMS, values)


async def without_owner(transaction: Transaction, most: int) -> list[Volume]:
    """Locks and returns volumes whose container was deleted."""
    locked = await transaction.connection.execute(_LOCK_WITHOUT_OWNER, {"most": most})
    return await get_many(transaction, list(locked.scalars()))


async def not_needed(transaction: Transaction, claims: Claims, most: int) -> list[Volume]:
    """Locks and returns volumes of a container that no pod needs."""
    locked = await transaction.connection.execute(_LOCK_NOT_NEEDED, _keys(claims, most))
    return await get_many(transaction, list(locked.scalars()))


async def of_others(transaction: Transaction, claims: Claims, most: int) -> list[Volume]:
    """Locks and returns volumes that the container's pods need but that the container does not own yet."""
    locked = await transaction.connection.execute(_LOCK_OF_OTHERS, _keys(claims, most))
    return await get_many(transaction, list(locked.scalars()))


async def missing_claims(transaction: Transaction, claims: Claims, most: int) -> list[tuple[str, str]]:
    """Returns templates and names of claims without a row, ordered by ordinal."""
    rows = await transaction.connection.execute(_MISSING, _keys(claims, most))
    return [(row.template, row.name) for row in rows]


def _keys(claims: Claims, most: int) -> dict[str, Any]:
    return {
        "container_id": claims.container_id,
        "namespace_id": claims.namespace_id,
        "needed": orjson.dumps(claims.needed).decode(),
        "first": claims.needed["first"],
        "last": claims.needed["last"],
        "most": most,
    }


async def insert_owned(transaction: Transaction, volumes: Sequence[Volume]) -> list[Volume]:
    """Inserts rows, with work for the reconciler, and returns them as stored."""
    return await _written_owned(transaction, _INSERT_OWNED, [_owned_row(each) for each in volumes])


async def update_owners(transaction: Transaction, volumes: Sequence[Volume]) -> list[Volume]:
    """Writes the owners of locked rows, with work for the reconciler, and returns them as stored."""
    rows = [
        {"id": each.id, "owner": each.owner or None, "owner_id": each.owner_id, "ends": each.ends_with_claim}
        for each in volumes
    ]
    return await _written_owned(transaction, _UPDATE_OWNERS, rows)


async def lock_count(transaction: Transaction, namespace_id: int) -> None:
    """Takes the counting lock of a namespace until the transaction ends."""
    await transaction.connection.execute(_COUNTING_LOCK, {"key": f"quota/{namespace_id}"})


async def count_storage(transaction: ReadTransaction, namespace_id: int) -> int:
    """Returns how many bytes of storage count against the quota of a namespace."""
    return int(
        (await transaction.connection.execute(_COUNT_STORAGE, {"namespace_id": namespace_id})).scalar_one()
    )


async def _written_owned(
    transaction: Transaction, statement: TextClause, rows: Sequence[dict[str, Any]]
) -> list[Volume]:
    if not rows:
        return []
    written = await transaction.connection.execute(statement, {"rows": orjson.dumps(rows).decode()})
    return await get_many(transaction, list(written.scalars()))


def _owned_row(volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "namespace_id": volume.namespace_id,
        "owner": volume.owner,
        "owner_id": volume.owner_id,
        "size": volume.size,
        "storage_class": volume.storage_class or None,
        "access_mode": volume.access_mode or None,
        "labels": volume.labels,
        "annotations": volume.annotations,
        "spec": {
            "templated": True,
            **modes_of(volume),
            **({"given_back": True} if volume.given_back else {}),
        },
    }
