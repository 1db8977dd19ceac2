"""SQL for volumes, except the writes of the reconciler.

The statement that reads a volume also reads the names of the containers that mount it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import msgspec
import orjson
from sqlalchemy import (
    ScalarSelect,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from pilothouse_server.errors import already_exists
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.storage.model import CachedVolume, ObservedVolume, Volume
from pilothouse_server.storage.tables import CONTAINER_VOLUMES, CONTAINERS, VOLUMES
from pilothouse_server.store.cached_rows import CachedRows
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import (
    FilterField,
    FilterKind,
    filter_fields,
)
from pilothouse_server.store.generations import deletion_values, write_generation
from pilothouse_server.store.in_namespaces import Matching, read_matching
from pilothouse_server.store.paging import (
    OrderField,
)
from pilothouse_server.store.references import (
    IN_NAMESPACE,
    NAMESPACES,
    USERS,
    reconciled_fields,
    reconciling,
)
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.values.resources import Condition

register_constraint("uq_volumes_name", lambda: already_exists("volume", "of this name"))

_TYPES = {
    name.upper(): name
    for name in ("persistent_volume_claim", "config_map", "secret", "host_path", "empty_dir")
}
_STATUSES = {name.upper(): name for name in ("available", "bound", "failed", "deleted")}
_ACCESS_MODES = {
    "READ_WRITE_ONCE": "ReadWriteOnce",
    "READ_ONLY_MANY": "ReadOnlyMany",
    "READ_WRITE_ONCE_POD": "ReadWriteOncePod",
    "READ_WRITE_MANY": "ReadWriteMany",
}
_FILTERS = {
    "type": FilterField(VOLUMES.c.type, FilterKind.ENUM, _TYPES, "VOLUME_TYPE_"),
    "status": FilterField(VOLUMES.c.status, FilterKind.ENUM, _STATUSES, "VOLUME_STATUS_"),
    "access_mode": FilterField(VOLUMES.c.access_mode, FilterKind.ENUM, _ACCESS_MODES, "ACCESS_MODE_"),
    "volume_mode": FilterField(VOLUMES.c.spec["volume_mode"].astext),
    "namespace": FilterField(NAMESPACES.c.name),
    **filter_fields(
        VOLUMES,
        "name owner storage_class size mount_path host_path source_name reason message capacity kubernetes_name uid"
        " claim_storage_class claim_uid persistent_volume generation observed_generation create_time update_time"
        " delete_time stale_since labels annotations",
    ),
    "created_by": FilterField(USERS.c.username),
    "reconciling": FilterField(reconciling(VOLUMES), FilterKind.BOOLEAN),
}
_ORDERS = {"name": OrderField(VOLUMES.c.name), "create_time": OrderField(VOLUMES.c.created_at)}


def _mounted_by() -> ScalarSelect[Any]:
    return (
        select(
            func.coalesce(
                func.array_agg(aggregate_order_by(CONTAINERS.c.name.distinct(), CONTAINERS.c.name)),
                cast(literal_column("'{}'"), ARRAY(Text)),
            )
        )
        .select_from(CONTAINER_VOLUMES.join(CONTAINERS, CONTAINERS.c.id == CONTAINER_VOLUMES.c.container_id))
        .where(CONTAINER_VOLUMES.c.volume_id == VOLUMES.c.id, CONTAINERS.c.deletion_requested_at.is_(None))
        .scalar_subquery()
    )


def _whole_volumes() -> Select[Any]:
    return select(
        VOLUMES,
        *IN_NAMESPACE,
        USERS.c.username.label("creator"),
        _mounted_by().label("mounted_by"),
    ).select_from(
        # An ended namespace contains no volumes, so this query need not exclude ended ones.
        VOLUMES.join(NAMESPACES, NAMESPACES.c.id == VOLUMES.c.namespace_id).outerjoin(
            USERS, USERS.c.id == VOLUMES.c.created_by
        )
    )


_WHOLE = _whole_volumes()
_NAMED = (NAMESPACES.c.name == bindparam("namespace"), VOLUMES.c.name == bindparam("name"))
_IDENTIFIED = VOLUMES.c.id == bindparam("volume_id")
_FIND = _WHOLE.where(*_NAMED)
_GET = _WHOLE.where(_IDENTIFIED)
_GET_MANY = _WHOLE.where(VOLUMES.c.id.in_(bindparam("ids", expanding=True))).order_by(VOLUMES.c.id)
# The row is locked before it is read; otherwise its mounts would be read as they were before the wait for the lock.
_LOCK = select(VOLUMES.c.id).join(NAMESPACES, NAMESPACES.c.id == VOLUMES.c.namespace_id)
_LOCK_NAMED = _LOCK.where(*_NAMED).with_for_update(of=VOLUMES, key_share=True)
_LOCK_IDENTIFIED = _LOCK.where(_IDENTIFIED).with_for_update(of=VOLUMES, key_share=True)

_HAS_MOUNT_CHANGES = text("SELECT EXISTS (SELECT FROM mount_changes)")
_NAMED_BY_MOUNT_CHANGES = text("SELECT volume_id FROM mount_changes ORDER BY id LIMIT :most")
_TAKE_MOUNT_CHANGES = text(
    "DELETE FROM mount_changes WHERE volume_id = ANY (CAST(:ids AS bigint[])) RETURNING volume_id"
)
_INSERT_MANY = text("""
INSERT INTO volumes (name, namespace_id, type, storage_class, access_mode, host_path, source_name, kubernetes_name,
    spec, observed_generation, size, mount_path, labels, annotations, created_by, updated_by)
SELECT r.name, r.namespace_id, r.type, r.storage_class, r.access_mode, r.host_path, r.source_name, r.kubernetes_name,
    r.spec, r.observed_generation, r.size, r.mount_path, r.labels, r.annotations, :user_id, :user_id
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    name text, namespace_id bigint, type text, storage_class text, access_mode text, host_path text, source_name text,
    kubernetes_name text, spec jsonb, observed_generation bigint, size text, mount_path text, labels jsonb,
    annotations jsonb)
RETURNING id
""")
_LOCK_MANY = text(
    "SELECT id FROM volumes WHERE id = ANY (CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE"
)


def _cached_volume(row: Any) -> CachedVolume:
    return CachedVolume(row.id, row.namespace_id, row.creator, row.message, row.mounted_by)


async def find(
    transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False
) -> Volume | None:
    """Returns the volume of this name, if the caller may see it. `lock` locks its row until the transaction ends."""
    named = {"namespace": namespace, "name": name}
    if lock:
        locked = (await transaction.connection.execute(_LOCK_NAMED, named)).scalar_one_or_none()
        return None if locked is None else await get(transaction, locked)
    row = (await transaction.connection.execute(_FIND, named)).one_or_none()
    return None if row is None else _volume(row)


async def get(transaction: ReadTransaction, volume_id: int, *, lock: bool = False) -> Volume | None:
    """Returns the volume with this id."""
    identified = {"volume_id": volume_id}
    if lock and (await transaction.connection.execute(_LOCK_IDENTIFIED, identified)).first() is None:
        return None
    row = (await transaction.connection.execute(_GET, identified)).one_or_none()
    return None if row is None else _volume(row)


async def get_many(transaction: ReadTransaction, ids: Sequence[int]) -> list[Volume]:
    """Returns the volumes with these ids, ordered by id; missing ones are left out."""
    rows = await transaction.connection.execute(_GET_MANY, {"ids": list(ids)})
    return [_volume(row) async for row in cooperatively(rows.all())]


async def has_mount_changes(transaction: ReadTransaction) -> bool:
    """Returns whether any mount changes are left."""
    return bool((await transaction.connection.execute(_HAS_MOUNT_CHANGES)).scalar_one())


async def take_mount_changes(transaction: Transaction, most: int) -> list[Volume]:
    """Removes the oldest mount changes that no other server has removed; returns their volumes.

    The volumes are locked until the transaction ends, and ordered by id.
    """
    named = (await transaction.connection.execute(_NAMED_BY_MOUNT_CHANGES, {"most": most})).scalars()
    # Volumes are locked before their mount changes, as in a deletion, which also deletes the changes. They are also
    # locked before they are read; otherwise their mounts would be read as they were before the wait for the locks.
    locked = (await transaction.connection.execute(_LOCK_MANY, {"ids": sorted(set(named))})).scalars()
    taken = (await transaction.connection.execute(_TAKE_MOUNT_CHANGES, {"ids": list(locked)})).scalars()
    return await get_many(transaction, sorted(set(taken)))


async def stream_volumes(
    transaction: ReadTransaction,
    *,
    namespace_id: int | None = None,
    name: str = "",
    status: str = "",
    selector: LabelSelector | None = None,
    visible: Collection[int] | None = None,
) -> AsyncIterator[Volume]:
    """Yields every volume that matches, by namespace and name."""
    wanted = Matching(namespace_id, selector, visible, name, status)
    async for rows in read_matching(transaction.connection, _WHOLE, VOLUMES, wanted):
        for row in rows:
            yield _volume(row)


CACHED: CachedRows[CachedVolume, Volume] = CachedRows(
    "volume",
    VOLUMES,
    get_many,
    _cached_volume,
    filters=_FILTERS,
    orders=_ORDERS,
    columns=[_mounted_by().label("mounted_by")],
)


def modes_of(volume: Volume) -> dict[str, Any]:
    """Returns the modes of a claim that have no column of their own."""
    return {
        **({"access_modes": volume.access_modes} if len(volume.access_modes) > 1 else {}),
        **({"volume_mode": volume.volume_mode} if volume.volume_mode else {}),
    }


async def insert_volumes(transaction: Transaction, wanted: Sequence[Volume]) -> list[Volume]:
    """Inserts volumes with one statement; returns them as stored, ordered by id."""
    rows = [
        {"name": each.name, "namespace_id": each.namespace_id, **_fixed(each), **_changeable(each)}
        for each in wanted
    ]
    parameters = {"rows": orjson.dumps(rows).decode(), "user_id": transaction.actor.user_id}
    ids = (await transaction.connection.execute(_INSERT_MANY, parameters)).scalars()
    return await get_many(transaction, list(ids))


async def first_taken(transaction: ReadTransaction, namespace_id: int, names: Sequence[str]) -> str | None:
    """Returns one of these names that a volume has; None if no volume has any of them."""
    query = select(VOLUMES.c.name).where(VOLUMES.c.namespace_id == namespace_id, VOLUMES.c.name.in_(names))
    found: str | None = (await transaction.connection.execute(query.limit(1))).scalar_one_or_none()
    return found


async def insert_volume(transaction: Transaction, wanted: Volume) -> Volume:
    """Inserts a volume and returns it as stored."""
    statement = (
        insert(VOLUMES)
        .values(
            # An orphaned claim keeps the uid of its volume.
            **({"uid": wanted.uid} if wanted.uid else {}),
            name=wanted.name,
            namespace_id=wanted.namespace_id,
            taken_over=wanted.taken_over or None,
            **_fixed(wanted),
            created_by=transaction.actor.user_id,
            updated_by=transaction.actor.user_id,
            **_changeable(wanted),
        )
        .returning(VOLUMES.c.id)
    )
    return await _stored(transaction, (await transaction.connection.execute(statement)).scalar_one())


async def update_volume(transaction: Transaction, stored: Volume, wanted: Volume) -> Volume:
    """Writes the changeable values of a volume that the transaction has locked, as its next generation."""
    return await _update(transaction, stored, _changeable(wanted))


async def replace_claim(transaction: Transaction, stored: Volume, wanted: Volume) -> Volume:
    """Writes a volume as `update_volume` does, and clears the state of the lost claim."""
    forgotten: dict[str, Any] = {
        "status": "available",
        "reason": None,
        "message": None,
        "capacity": None,
        "claim_uid": None,
        "persistent_volume": None,
        "conditions": [],
    }
    return await _update(transaction, stored, {**_changeable(wanted), **forgotten})


async def mark_for_deletion(transaction: Transaction, stored: Volume) -> Volume:
    """Marks for deletion a claim that the transaction has locked."""
    return await _update(transaction, stored, await deletion_values(transaction))


async def showing(
    transaction: ReadTransaction, namespace_id: int, kind: str, names: Sequence[str]
) -> Sequence[str]:
    """Returns the names of the volumes that show config maps or secrets, except those being deleted."""
    query = (
        select(VOLUMES.c.name)
        .where(
            VOLUMES.c.namespace_id == namespace_id,
            VOLUMES.c.type == kind,
            VOLUMES.c.source_name.in_(names),
            VOLUMES.c.deletion_requested_at.is_(None),
        )
        .order_by(VOLUMES.c.name)
    )
    return [row.name for row in await transaction.connection.execute(query)]


async def count(transaction: ReadTransaction, namespace_id: int) -> int:
    """Returns how many volumes a namespace contains, including those being deleted."""
    query = select(func.count()).where(VOLUMES.c.namespace_id == namespace_id)
    return int((await transaction.connection.execute(query)).scalar_one())


async def delete_volume(transaction: Transaction, volume_id: int) -> None:
    """Deletes a row, with its remaining mounts."""
    await transaction.connection.execute(delete(VOLUMES).where(VOLUMES.c.id == volume_id))


def _fixed(wanted: Volume) -> dict[str, Any]:
    return {
        "type": wanted.type,
        "storage_class": wanted.storage_class or None,
        "access_mode": wanted.access_mode or None,
        "host_path": wanted.host_path or None,
        "source_name": wanted.source_name or None,
        "kubernetes_name": wanted.kubernetes_name or None,
        "spec": {
            **modes_of(wanted),
            **({"medium": wanted.medium} if wanted.medium else {}),
            **({"optional": True} if wanted.optional else {}),
            **({"external": True} if wanted.external else {}),
        },
        # A volume without an object on the cluster exists once it is stored.
        "observed_generation": 0 if wanted.is_claim else 1,
    }


def _changeable(wanted: Volume) -> dict[str, Any]:
    return {
        "size": wanted.size or None,
        "mount_path": wanted.mount_path or None,
        "labels": wanted.labels,
        "annotations": wanted.annotations,
    }


async def _update(transaction: Transaction, stored: Volume, values: dict[str, Any]) -> Volume:
    if not stored.is_claim:
        values = {**values, "observed_generation": stored.generation + 1}
    await write_generation(transaction, VOLUMES, stored.id, stored, values)
    return await _stored(transaction, stored.id)


async def _stored(transaction: ReadTransaction, volume_id: int) -> Volume:
    found = await get(transaction, volume_id)
    assert found is not None, "a row that was just written can be read back"
    return found


def _volume(row: Row) -> Volume:
    return Volume(
        id=row.id,
        uid=str(row.uid),
        name=row.name,
        kubernetes_name=row.kubernetes_name or "",
        taken_over=row.taken_over or "",
        type=row.type,
        storage_class=row.storage_class or "",
        size=row.size or "",
        access_mode=row.access_mode or "",
        access_modes=tuple(row.spec.get("access_modes") or filter(None, (row.access_mode,))),
        volume_mode=row.spec.get("volume_mode", ""),
        mount_path=row.mount_path or "",
        host_path=row.host_path or "",
        source_name=row.source_name or "",
        medium=row.spec.get("medium", ""),
        optional=row.spec.get("optional", False),
        external=row.spec.get("external", False),
        labels=row.labels,
        annotations=row.annotations,
        observed=ObservedVolume(
            status=row.status,
            reason=row.reason or "",
            message=row.message or "",
            capacity=row.capacity or "",
            claim_uid=row.claim_uid or "",
            persistent_volume=row.persistent_volume or "",
            storage_class=row.claim_storage_class or "",
            conditions=msgspec.convert(row.conditions, tuple[Condition, ...]),
            stale_since=row.stale_since,
        ),
        mounted_by=tuple(row.mounted_by),
        owner=row.owner or "",
        owner_id=row.owner_id,
        templated=row.spec.get("templated", False),
        given_back=row.spec.get("given_back", False),
        ends_with_claim=row.spec.get("ends_with_claim", False),
        **reconciled_fields(row),
    )
