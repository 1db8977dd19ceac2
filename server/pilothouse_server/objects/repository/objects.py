"""SQL for the rows of carried objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import orjson
from sqlalchemy import Select, bindparam, delete, func, select, text, update

from pilothouse_manifests.carried import RBAC
from pilothouse_server.errors import already_exists
from pilothouse_server.objects.model import (
    CarriedObject,
    Contest,
    ObjectBackend,
    ObjectCertificate,
    ObjectKey,
    ObjectTexts,
    ObservedObject,
)
from pilothouse_server.objects.tables import OBJECTS
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.cached_rows import CachedRows, cached_message
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.generations import deletion_values, write_generation
from pilothouse_server.store.in_namespaces import Matching, narrowed, read_matching
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    paginate_rows,
    parse_order_by,
    read_page,
)
from pilothouse_server.store.references import (
    IN_NAMESPACE,
    NAMESPACES,
    USERS,
    keys_of,
    reconciled_fields,
    reconciling,
)
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.cached_message import CachedMessage
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.values.resources import Condition

register_constraint("uq_objects_name", lambda: already_exists("object", "of this kind and name"))

# Documents and observed statuses by object id.
Rests = dict[int, ObjectTexts]

_STATUSES = {name.upper(): name for name in ("pending", "active", "failed", "deleted")}
_HEALTHS = {name.upper(): name for name in ("unknown", "healthy", "progressing", "degraded")}
_POLICIES = {name.upper(): name for name in ("repair", "report", "adopt")}
_FILTERS = {
    "status": FilterField(OBJECTS.c.status, FilterKind.ENUM, _STATUSES, "OBJECT_STATUS_"),
    "health": FilterField(OBJECTS.c.health, FilterKind.ENUM, _HEALTHS, "OBJECT_HEALTH_"),
    "drift_policy": FilterField(OBJECTS.c.drift_policy, FilterKind.ENUM, _POLICIES, "DRIFT_POLICY_"),
    "namespace": FilterField(NAMESPACES.c.name),
    **filter_fields(
        OBJECTS,
        "name api_group api_version kind reason message uid generation observed_generation create_time update_time"
        " delete_time stale_since labels annotations",
    ),
    "protected": FilterField(OBJECTS.c.protected, FilterKind.BOOLEAN),
    "privileged": FilterField(OBJECTS.c.privileged, FilterKind.BOOLEAN),
    "created_by": FilterField(USERS.c.username),
    "reconciling": FilterField(reconciling(OBJECTS), FilterKind.BOOLEAN),
}
_ORDERS = {
    "name": OrderField(OBJECTS.c.name),
    "kind": OrderField(OBJECTS.c.kind),
    "create_time": OrderField(OBJECTS.c.created_at),
}
_WHOLE = select(OBJECTS, *IN_NAMESPACE, USERS.c.username.label("creator")).select_from(
    # An ended namespace contains no objects, so this query need not exclude ended ones.
    OBJECTS.join(NAMESPACES, NAMESPACES.c.id == OBJECTS.c.namespace_id).outerjoin(
        USERS, USERS.c.id == OBJECTS.c.created_by
    )
)
_FIND = _WHOLE.where(
    NAMESPACES.c.name == bindparam("namespace"),
    OBJECTS.c.api_group == bindparam("group"),
    OBJECTS.c.kind == bindparam("of_kind"),
    OBJECTS.c.name == bindparam("name"),
)
_GET = _WHOLE.where(OBJECTS.c.id == bindparam("object_id"))
_GET_MANY = _WHOLE.where(OBJECTS.c.id.in_(bindparam("ids", expanding=True))).order_by(OBJECTS.c.id)
_GIVING_RIGHTS = (
    _WHOLE.where(
        OBJECTS.c.api_group == RBAC,
        OBJECTS.c.id > bindparam("after"),
        OBJECTS.c.deletion_requested_at.is_(None),
    )
    .order_by(OBJECTS.c.id)
    .limit(bindparam("most"))
)
_PROTECTED = (
    _WHOLE.where(
        OBJECTS.c.namespace_id == bindparam("in_namespace"),
        OBJECTS.c.protected | OBJECTS.c.privileged,
        OBJECTS.c.deletion_requested_at.is_(None),
    )
    .order_by(OBJECTS.c.kind, OBJECTS.c.name)
    .limit(1)
)
_OF_KIND = _WHOLE.where(
    OBJECTS.c.namespace_id == bindparam("in_namespace"),
    OBJECTS.c.api_group == bindparam("group"),
    OBJECTS.c.kind == bindparam("of_kind"),
).order_by(OBJECTS.c.name)


# Inserts nothing if the name is taken or the namespace has reached its limit for the kind.
_INSERT = text("""
WITH used AS (
    SELECT count(*) AS used, bool_or(deletion_requested_at IS NOT NULL) FILTER (WHERE name = :name) AS deleting
    FROM objects WHERE namespace_id = :namespace_id AND api_group = :api_group AND kind = :kind),
made AS (
    INSERT INTO objects (name, namespace_id, api_group, kind, taken_over, created_by, updated_by, api_version, labels,
        annotations, document, drift_policy, protected, privileged, rights)
    SELECT :name, :namespace_id, :api_group, :kind, CAST(:taken_over AS text), CAST(:user_id AS bigint),
        CAST(:user_id AS bigint), CAST(:api_version AS text), CAST(CAST(:labels AS text) AS jsonb),
        CAST(CAST(:annotations AS text) AS jsonb), CAST(:document AS text), CAST(:drift_policy AS text),
        CAST(:protected AS boolean), CAST(:privileged AS boolean), CAST(CAST(:rights AS text) AS jsonb)
    FROM used WHERE used.deleting IS NULL AND used.used < CAST(:most AS bigint)
    RETURNING id, uid, created_at, updated_at),
work AS (
    INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, namespace_id, due_at)
    SELECT 'object', made.id, CAST(:cluster_name AS text), :namespace_id, clock_timestamp()
    FROM made WHERE CAST(:with_work AS boolean))
SELECT used.used, used.deleting, made.id, made.uid, made.created_at, made.updated_at
FROM used LEFT JOIN made ON TRUE
""")


async def find(
    transaction: ReadTransaction, namespace: str, key: ObjectKey, *, lock: bool = False
) -> CarriedObject | None:
    """Returns the object of this key, if the caller may see it. `lock` locks its row until the transaction ends."""
    query = _FIND.with_for_update(of=OBJECTS, key_share=True) if lock else _FIND
    named = {"namespace": namespace, "group": key.api_group, "of_kind": key.kind, "name": key.name}
    row = (await transaction.connection.execute(query, named)).one_or_none()
    return None if row is None else _object(row)


async def get(transaction: ReadTransaction, object_id: int, *, lock: bool = False) -> CarriedObject | None:
    """Returns the object with this id."""
    query = _GET.with_for_update(of=OBJECTS, key_share=True) if lock else _GET
    row = (await transaction.connection.execute(query, {"object_id": object_id})).one_or_none()
    return None if row is None else _object(row)


async def get_many(transaction: ReadTransaction, ids: Sequence[int]) -> list[CarriedObject]:
    """Returns the objects with these ids, ordered by id; missing ones are left out."""
    rows = await transaction.connection.execute(_GET_MANY, {"ids": list(ids)})
    return [_object(row) async for row in cooperatively(rows.all())]


CACHED: CachedRows[CachedMessage, CarriedObject] = CachedRows(
    "object", OBJECTS, get_many, cached_message, filters=_FILTERS, orders=_ORDERS
)


async def of_kind(
    transaction: ReadTransaction, namespace_id: int, api_group: str, kind: str
) -> list[CarriedObject]:
    """Returns the objects of a kind in a namespace, by name."""
    named = {"in_namespace": namespace_id, "group": api_group, "of_kind": kind}
    return [_object(row) for row in (await transaction.connection.execute(_OF_KIND, named)).all()]


async def list_objects(
    transaction: ReadTransaction,
    page: PageRequest,
    *,
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
    message_format: int,
    full: bool,
) -> tuple[Sequence[CachedMessage | CarriedObject], Rests, NextPage]:
    """Returns one page of the objects of one namespace or of those in `visible`, and where the next begins.

    An object with a cached message of this format is returned as that message; any other is returned as a value. `full`
    also returns documents and observed statuses; a page of large objects may then contain fewer of them.
    """
    if not full:
        wanted = Matching(namespace_id, selector, visible)
        found, next_page = await CACHED.list_page(transaction, page, wanted, message_format)
        return found, {}, next_page
    keys = keys_of(OBJECTS, compile_filter(page.filter, _FILTERS))
    keys = narrowed(keys, OBJECTS, namespace_id, selector, visible)
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=OBJECTS.c.id)
    whole = _with_texts(CACHED.select(message_format))

    async def read(part: PageRequest) -> Sequence[Row]:
        return (
            await transaction.connection.execute(paginate_rows(whole, keys, OBJECTS.c.id, order, part))
        ).all()

    rows, next_page = await read_page(read, order, page, _size)
    rests = {row.id: _texts(row) for row in rows}
    return await CACHED.ready(transaction, rows), rests, next_page


_ROWS = """jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    id bigint, name text, namespace_id bigint, api_group text, kind text, api_version text, labels jsonb,
    annotations jsonb, document text, drift_policy text, protected boolean, privileged boolean, rights jsonb)"""
_SET = (
    "api_version",
    "labels",
    "annotations",
    "document",
    "drift_policy",
    "protected",
    "privileged",
    "rights",
)
_INSERT_MANY = text(
    f"INSERT INTO objects (name, namespace_id, api_group, kind, {', '.join(_SET)}, created_by, updated_by) "  # noqa: S608 - only constants
    f"SELECT r.name, r.namespace_id, r.api_group, r.kind, {', '.join(f'r.{name}' for name in _SET)}, :user_id, "
    f":user_id FROM {_ROWS} RETURNING id"
)
_UPDATE_MANY = text(
    f"UPDATE objects AS o SET {', '.join(f'{name} = r.{name}' for name in _SET)}, contests = '[]', "  # noqa: S608 - only constants
    "generation = o.generation + 1, resource_version = o.resource_version + 1, updated_at = now(), "
    f"updated_by = :user_id FROM {_ROWS} WHERE o.id = r.id"
)
_MARK_MANY = text("""
UPDATE objects
SET deletion_requested_at = :moment, status = 'deleted', reason = NULL, message = NULL, health = 'unknown',
    generation = generation + 1, resource_version = resource_version + 1, updated_at = now(), updated_by = :user_id
WHERE id = ANY (CAST(:ids AS bigint[]))
""")
_LOCK_NAMED = _OF_KIND.where(OBJECTS.c.name.in_(bindparam("names", expanding=True)))


@lru_cache(maxsize=8)
def _with_texts(query: Select[Any]) -> Select[Any]:
    return query.add_columns(
        OBJECTS.c.document,
        OBJECTS.c.observed_status,
        OBJECTS.c.api_group,
        OBJECTS.c.kind,
        NAMESPACES.c.name.label("namespace_name"),
        NAMESPACES.c.cluster_name,
    )


def _texts(row: Row) -> ObjectTexts:
    return ObjectTexts(
        row.document, row.observed_status, row.namespace_name, row.cluster_name, row.api_group, row.kind
    )


def _size(row: Row) -> int:
    return len(row.message or b"") + len(row.document) + len(row.observed_status)


async def stream_objects(transaction: ReadTransaction, *, namespace_id: int) -> AsyncIterator[CarriedObject]:
    """Yields every object of a namespace, by name."""
    wanted = Matching(namespace_id, None, None)
    async for rows in read_matching(transaction.connection, _WHOLE, OBJECTS, wanted, most_rows=50):
        for row in rows:
            yield _object(row)


async def stream_ready(
    transaction: ReadTransaction,
    wanted: Matching,
    *,
    message_format: int,
    full: bool,
) -> AsyncIterator[tuple[CachedMessage | CarriedObject, ObjectTexts | None]]:
    """Yields every object that matches, by namespace and name; as its cached message if there is one.

    With `full` also its document and observed status.
    """
    whole = CACHED.select(message_format)
    if full:
        whole = _with_texts(whole)
    most = 16 if full else 250
    async for rows in read_matching(transaction.connection, whole, OBJECTS, wanted, most_rows=most):
        for row, each in zip(rows, await CACHED.ready(transaction, rows), strict=True):
            yield each, _texts(row) if full else None


async def rests_of(transaction: ReadTransaction, uids: Iterable[str]) -> dict[str, ObjectTexts]:
    """Returns document and observed status of the objects with these uids."""
    query = _with_texts(
        select(OBJECTS.c.uid)
        .select_from(OBJECTS.join(NAMESPACES, NAMESPACES.c.id == OBJECTS.c.namespace_id))
        .where(OBJECTS.c.uid.in_(list(uids)))
    )
    rows = (await transaction.connection.execute(query)).all()
    return {str(row.uid): _texts(row) for row in rows}


class Insertion(msgspec.Struct, frozen=True):
    """The result of an insertion.

    `carried`: the object as stored; None if it was not inserted. It was not inserted if its name is taken (`is_taken`;
    `is_deleting` if that object is being deleted) or if the `used` objects reach the limit.
    """

    carried: CarriedObject | None
    used: int
    is_taken: bool = False
    is_deleting: bool = False


async def insert_object(
    transaction: Transaction, wanted: CarriedObject, most: int, *, with_work: bool
) -> Insertion:
    """Inserts an object and its work for the reconciler, unless its namespace has `most` objects of its kind.

    Objects that are being deleted count.
    """
    actor = transaction.actor
    changeable = _changeable(wanted)
    row = (
        await transaction.connection.execute(
            _INSERT,
            {
                **changeable,
                **{key: orjson.dumps(changeable[key]).decode() for key in ("labels", "annotations")},
                "rights": None if wanted.rights is None else orjson.dumps(changeable["rights"]).decode(),
                "name": wanted.name,
                "namespace_id": wanted.namespace_id,
                "cluster_name": wanted.cluster_name,
                "api_group": wanted.api_group,
                "kind": wanted.kind,
                "taken_over": wanted.taken_over or None,
                "user_id": actor.user_id,
                "most": most,
                "with_work": with_work,
            },
        )
    ).one()
    if row.id is None:
        return Insertion(None, row.used, is_taken=row.deleting is not None, is_deleting=bool(row.deleting))
    # Reading the row back would cost as much as inserting it.
    made = msgspec.structs.replace(
        wanted,
        id=row.id,
        uid=str(row.uid),
        observed=ObservedObject(),
        generation=1,
        observed_generation=0,
        resource_version=1,
        row_version=1,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by="" if actor.user_id is None else actor.username,
    )
    return Insertion(made, row.used)


async def insert_objects(transaction: Transaction, wanted: Sequence[CarriedObject]) -> list[CarriedObject]:
    """Inserts objects with one statement; returns them as stored, ordered by id."""
    rows = [
        {"name": each.name, "namespace_id": each.namespace_id, "api_group": each.api_group, "kind": each.kind}
        | _changeable(each)
        for each in wanted
    ]
    found = await transaction.connection.execute(_INSERT_MANY, _written(transaction, rows))
    return await get_many(transaction, list(found.scalars()))


async def update_objects(transaction: Transaction, wanted: Sequence[CarriedObject]) -> list[CarriedObject]:
    """Writes objects as `update_object` does, with one statement; returns them ordered by id."""
    if not wanted:
        return []
    rows = [{"id": each.id} | _changeable(each) for each in wanted]
    await transaction.connection.execute(_UPDATE_MANY, _written(transaction, rows))
    return await get_many(transaction, [each.id for each in wanted])


async def lock_named(
    transaction: Transaction, namespace_id: int, key: ObjectKey, names: Sequence[str]
) -> list[CarriedObject]:
    """Returns the objects with these names of the kind of a key, ordered by name, locked until the transaction ends."""
    query = _LOCK_NAMED.with_for_update(of=OBJECTS, key_share=True)
    named = {"in_namespace": namespace_id, "group": key.api_group, "of_kind": key.kind, "names": list(names)}
    rows = (await transaction.connection.execute(query, named)).all()
    return [_object(row) async for row in cooperatively(rows)]


async def update_object(
    transaction: Transaction, stored: CarriedObject, wanted: CarriedObject
) -> CarriedObject:
    """Writes the desired state of an object that the transaction has locked, as its next generation.

    The contests are cleared, because somebody has changed the object.
    """
    return await _update(transaction, stored, {**_changeable(wanted), "contests": []})


async def mark_for_deletion(transaction: Transaction, stored: CarriedObject) -> CarriedObject:
    """Marks for deletion an object that the transaction has locked."""
    return await _update(transaction, stored, await deletion_values(transaction) | {"health": "unknown"})


async def mark_many(transaction: Transaction, ids: Sequence[int]) -> list[CarriedObject]:
    """Marks locked objects for deletion with one statement; returns them ordered by id."""
    parameters = {
        "ids": list(ids),
        "moment": await transaction.moment(),
        "user_id": transaction.actor.user_id,
    }
    await transaction.connection.execute(_MARK_MANY, parameters)
    return await get_many(transaction, ids)


async def count_of_kind(transaction: ReadTransaction, namespace_id: int, key: ObjectKey) -> int:
    """Returns how many objects of a kind a namespace contains, including those being deleted."""
    query = select(func.count()).where(
        OBJECTS.c.namespace_id == namespace_id,
        OBJECTS.c.api_group == key.api_group,
        OBJECTS.c.kind == key.kind,
    )
    return int((await transaction.connection.execute(query)).scalar_one())


async def first_protected(transaction: ReadTransaction, namespace_id: int) -> CarriedObject | None:
    """Returns a namespace's first object, by kind and name, that is protected or that an administrator changed last."""
    row = (await transaction.connection.execute(_PROTECTED, {"in_namespace": namespace_id})).one_or_none()
    return None if row is None else _object(row)


async def giving_rights(
    transaction: ReadTransaction, after: int, rows: int
) -> list[tuple[CarriedObject, int | None]]:
    """Returns Roles and RoleBindings with ids above `after`, ordered by id, with the user who changed each last."""
    found = (await transaction.connection.execute(_GIVING_RIGHTS, {"after": after, "most": rows})).all()
    return [(_object(row), row.updated_by) for row in found]


async def write_conditions(transaction: Transaction, changed: CarriedObject) -> None:
    """Writes the conditions of an object that the transaction has locked."""
    conditions = msgspec.to_builtins(changed.observed.conditions)
    await transaction.connection.execute(
        update(OBJECTS).where(OBJECTS.c.id == changed.id).values(conditions=conditions, updated_at=func.now())
    )


async def count_all(transaction: ReadTransaction, namespace_id: int) -> int:
    """Returns how many objects a namespace contains, including those being deleted."""
    query = select(func.count()).where(OBJECTS.c.namespace_id == namespace_id)
    return int((await transaction.connection.execute(query)).scalar_one())


async def delete_object(transaction: Transaction, object_id: int) -> None:
    """Deletes a row."""
    await transaction.connection.execute(delete(OBJECTS).where(OBJECTS.c.id == object_id))


def _changeable(wanted: CarriedObject) -> dict[str, Any]:
    return {
        "api_version": wanted.api_version,
        "labels": wanted.labels,
        "annotations": wanted.annotations,
        "document": wanted.document,
        "drift_policy": wanted.drift_policy,
        "protected": wanted.protected,
        "privileged": wanted.privileged,
        "rights": None if wanted.rights is None else list(wanted.rights),
    }


def _written(transaction: Transaction, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"rows": orjson.dumps(rows).decode(), "user_id": transaction.actor.user_id}


async def _update(transaction: Transaction, stored: CarriedObject, values: dict[str, Any]) -> CarriedObject:
    await write_generation(transaction, OBJECTS, stored.id, stored, values)
    return await _stored(transaction, stored.id)


async def _stored(transaction: ReadTransaction, object_id: int) -> CarriedObject:
    found = await get(transaction, object_id)
    assert found is not None, "a row that was just written can be read back"
    return found


def _object(row: Row) -> CarriedObject:
    return CarriedObject(
        id=row.id,
        uid=str(row.uid),
        name=row.name,
        api_version=row.api_version,
        kind=row.kind,
        labels=row.labels,
        annotations=row.annotations,
        document=row.document,
        drift_policy=row.drift_policy,
        protected=row.protected,
        privileged=row.privileged,
        rights=None if row.rights is None else tuple(row.rights),
        taken_over=row.taken_over or "",
        observed=ObservedObject(
            status=row.status,
            reason=row.reason or "",
            message=row.message or "",
            health=row.health,
            addresses=tuple(row.addresses),
            backends=msgspec.convert(row.backends, tuple[ObjectBackend, ...]),
            certificates=msgspec.convert(row.certificates, tuple[ObjectCertificate, ...], strict=False),
            observed_status=row.observed_status,
            conditions=msgspec.convert(row.conditions, tuple[Condition, ...], strict=False),
            contests=msgspec.convert(row.contests, tuple[Contest, ...], strict=False),
            stale_since=row.stale_since,
        ),
        **reconciled_fields(row),
    )
