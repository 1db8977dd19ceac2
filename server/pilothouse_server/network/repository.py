"""SQL for Services, except the writes of the reconciler."""

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
from sqlalchemy.dialects.postgresql import ARRAY

from pilothouse_server.errors import already_exists
from pilothouse_server.network.model import ObservedService, Service, ServiceFields
from pilothouse_server.network.tables import CONTAINERS, PORT_MAPPINGS, SERVICES
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.cached_rows import CachedRows, cached_message
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import FilterField, FilterKind, filter_fields
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
from pilothouse_server.values.cached_message import CachedMessage
from pilothouse_server.values.resources import Condition

register_constraint("uq_services_name", lambda: already_exists("service", "of this name"))

_TYPES = {
    "CLUSTER_IP": "ClusterIP",
    "NODE_PORT": "NodePort",
    "LOAD_BALANCER": "LoadBalancer",
    "EXTERNAL_NAME": "ExternalName",
}
_STATUSES = {name.upper(): name for name in ("pending", "active", "failed", "deleted")}
_POLICIES = {name.upper(): name for name in ("repair", "report", "adopt")}
_FILTERS = {
    "type": FilterField(SERVICES.c.type, FilterKind.ENUM, _TYPES, "SERVICE_TYPE_"),
    "status": FilterField(SERVICES.c.status, FilterKind.ENUM, _STATUSES, "SERVICE_STATUS_"),
    "drift_policy": FilterField(SERVICES.c.drift_policy, FilterKind.ENUM, _POLICIES, "DRIFT_POLICY_"),
    "namespace": FilterField(NAMESPACES.c.name),
    **filter_fields(
        SERVICES,
        "name owner reason message uid ready_endpoints endpoints generation observed_generation create_time"
        " update_time delete_time stale_since labels annotations",
    ),
    "created_by": FilterField(USERS.c.username),
    "reconciling": FilterField(reconciling(SERVICES), FilterKind.BOOLEAN),
}
_ORDERS = {"name": OrderField(SERVICES.c.name), "create_time": OrderField(SERVICES.c.created_at)}
# Only one server at a time handles service changes, because a row computed from an older state of its container would
# replace a newer one.
_NO_OWNER = "owner IS NOT NULL AND owner_id IS NULL"
_HAS_CHANGES = text(
    "SELECT EXISTS (SELECT FROM service_changes) "  # noqa: S608 - only constants
    f"OR EXISTS (SELECT FROM services WHERE {_NO_OWNER})"
)
_TAKE_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('service_changes', 0))")
_TAKE_CHANGES = text(
    "DELETE FROM service_changes WHERE id IN (SELECT id FROM service_changes ORDER BY id LIMIT :most) "
    "RETURNING container_id"
)
# The containers' rows cannot be deleted before the rows of their Services are written.
_LOCK_OWNERS = text(
    "SELECT id FROM containers WHERE id = ANY (CAST(:ids AS bigint[])) ORDER BY id FOR KEY SHARE"
)
# Rows are locked before they are read.
_LOCK_OWNED = text(
    "SELECT id FROM services WHERE owner_id = ANY (CAST(:ids AS bigint[])) "  # noqa: S608 - only constants
    f"OR {_NO_OWNER} ORDER BY id FOR UPDATE"
)
_ROWS = """jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    id bigint, uid uuid, name text, namespace_id bigint, owner text, owner_id bigint, type text, spec jsonb,
    labels jsonb, annotations jsonb, drift_policy text)"""
# The writes of containers and of Services check that no two Services have the same name.
_INSERT_OWNED = text(
    f"""
INSERT INTO services (uid, name, namespace_id, owner, owner_id, type, spec, labels, annotations, drift_policy,
    observed_generation, created_by)
SELECT r.uid, r.name, r.namespace_id, r.owner, r.owner_id, r.type, r.spec, r.labels, r.annotations, r.drift_policy,
    1, c.created_by
FROM {_ROWS} JOIN containers AS c ON c.id = r.owner_id
ON CONFLICT ON CONSTRAINT uq_services_name DO NOTHING RETURNING id
"""  # noqa: S608 - only constants
)
_INSERT_MANY = text(
    f"""
INSERT INTO services (name, namespace_id, type, spec, labels, annotations, drift_policy, created_by, updated_by)
SELECT r.name, r.namespace_id, r.type, r.spec, r.labels, r.annotations, r.drift_policy, :user_id, :user_id
FROM {_ROWS} RETURNING id
"""  # noqa: S608 - only constants
)
_LOCK_NAMED = text(
    "SELECT id FROM services WHERE namespace_id = :namespace_id AND name = ANY (CAST(:names AS text[])) "
    "ORDER BY id FOR NO KEY UPDATE"
)
_UPDATE_MANY = text(
    f"""
UPDATE services AS s
SET type = r.type, spec = r.spec, labels = r.labels, annotations = r.annotations, drift_policy = r.drift_policy,
    generation = s.generation + 1, resource_version = s.resource_version + 1, updated_at = now(),
    updated_by = :user_id
FROM {_ROWS} WHERE s.id = r.id
"""  # noqa: S608 - only constants
)
_MARK_MANY = text("""
UPDATE services
SET deletion_requested_at = :moment, status = 'deleted', reason = NULL, message = NULL, generation = generation + 1,
    resource_version = resource_version + 1, updated_at = now(), updated_by = :user_id
WHERE id = ANY (CAST(:ids AS bigint[]))
""")
_ANY_TAKEN = text("""
SELECT s.name FROM services AS s WHERE s.namespace_id = :namespace_id AND s.name = ANY (CAST(:names AS text[]))
UNION ALL SELECT p.service_name FROM port_mappings AS p
WHERE p.namespace_id = :namespace_id AND p.service_name = ANY (CAST(:names AS text[])) LIMIT 1
""")
_UPDATE_OWNED = text(
    f"""
UPDATE services AS s
SET type = r.type, spec = r.spec, labels = r.labels, annotations = r.annotations, drift_policy = r.drift_policy,
    generation = s.generation + 1, observed_generation = s.generation + 1,
    resource_version = s.resource_version + 1, updated_at = now()
FROM {_ROWS} WHERE s.id = r.id RETURNING s.id
"""  # noqa: S608 - only constants
)
_MARK_OWNED = text("""
UPDATE services AS s
SET deletion_requested_at = now(), status = 'deleted', reason = NULL, message = NULL,
    generation = s.generation + 1, observed_generation = s.generation + 1,
    resource_version = s.resource_version + 1, updated_at = now()
WHERE s.id = ANY (CAST(:ids AS bigint[]))
""")
_DELETE_OWNED = text("DELETE FROM services WHERE id = ANY (CAST(:ids AS bigint[]))")


def _container_uids() -> ScalarSelect[Any]:
    """Selects the uids of the existing containers that a Service names; it names at most one."""
    named = SERVICES.c.spec["containers"][0].astext
    return (
        select(
            func.coalesce(
                func.array_agg(cast(CONTAINERS.c.uid, Text)), cast(literal_column("'{}'"), ARRAY(Text))
            )
        )
        .where(CONTAINERS.c.namespace_id == SERVICES.c.namespace_id, CONTAINERS.c.name == named)
        .correlate(SERVICES)
        .scalar_subquery()
    )


def _whole_services() -> Select[Any]:
    return select(
        SERVICES, *IN_NAMESPACE, USERS.c.username.label("creator"), _container_uids().label("container_uids")
    ).select_from(
        # An ended namespace contains no Services, so this query need not exclude ended ones.
        SERVICES.join(NAMESPACES, NAMESPACES.c.id == SERVICES.c.namespace_id).outerjoin(
            USERS, USERS.c.id == SERVICES.c.created_by
        )
    )


_WHOLE = _whole_services()
_FIND = _WHOLE.where(NAMESPACES.c.name == bindparam("namespace"), SERVICES.c.name == bindparam("name"))
_GET = _WHOLE.where(SERVICES.c.id == bindparam("service_id"))
_GET_MANY = _WHOLE.where(SERVICES.c.id.in_(bindparam("ids", expanding=True))).order_by(SERVICES.c.id)


async def find(
    transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False
) -> Service | None:
    """Returns the Service of this name, if the caller may see it. `lock` locks its row until the transaction ends."""
    query = _FIND.with_for_update(of=SERVICES, key_share=True) if lock else _FIND
    row = (await transaction.connection.execute(query, {"namespace": namespace, "name": name})).one_or_none()
    return None if row is None else _service(row)


async def get(transaction: ReadTransaction, service_id: int, *, lock: bool = False) -> Service | None:
    """Returns the Service with this id."""
    query = _GET.with_for_update(of=SERVICES, key_share=True) if lock else _GET
    row = (await transaction.connection.execute(query, {"service_id": service_id})).one_or_none()
    return None if row is None else _service(row)


async def get_many(transaction: ReadTransaction, ids: Sequence[int]) -> list[Service]:
    """Returns the Services with these ids, ordered by id; missing ones are left out."""
    rows = await transaction.connection.execute(_GET_MANY, {"ids": list(ids)})
    return [_service(row) async for row in cooperatively(rows.all())]


async def stream_services(transaction: ReadTransaction, *, namespace_id: int) -> AsyncIterator[Service]:
    """Yields every Service of a namespace, by name."""
    wanted = Matching(namespace_id, None, None, "", "")
    async for rows in read_matching(transaction.connection, _WHOLE, SERVICES, wanted):
        for row in rows:
            yield _service(row)


CACHED: CachedRows[CachedMessage, Service] = CachedRows(
    "service", SERVICES, get_many, cached_message, filters=_FILTERS, orders=_ORDERS
)


async def container_of(transaction: ReadTransaction, namespace_id: int, name: str) -> str | None:
    """Returns the name of the container whose ports define a Service of this name; None if there is none."""
    query = (
        select(CONTAINERS.c.name)
        .select_from(PORT_MAPPINGS.join(CONTAINERS, CONTAINERS.c.id == PORT_MAPPINGS.c.container_id))
        .where(PORT_MAPPINGS.c.namespace_id == namespace_id, PORT_MAPPINGS.c.service_name == name)
        .limit(1)
    )
    found: str | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


async def insert_service(transaction: Transaction, wanted: Service) -> Service:
    """Inserts a Service and returns it as stored."""
    statement = (
        insert(SERVICES)
        .values(
            **({"uid": wanted.uid} if wanted.uid else {}),
            name=wanted.name,
            namespace_id=wanted.namespace_id,
            owner=wanted.owner or None,
            owner_id=wanted.owner_id,
            taken_over=wanted.taken_over or None,
            observed_generation=wanted.observed_generation,
            created_by=transaction.actor.user_id,
            updated_by=transaction.actor.user_id,
            **_changeable(wanted),
        )
        .returning(SERVICES.c.id)
    )
    return await _stored(transaction, (await transaction.connection.execute(statement)).scalar_one())


async def any_taken(transaction: ReadTransaction, namespace_id: int, names: Sequence[str]) -> str | None:
    """Returns one of these names that a Service or a container's port already uses; None if none is used."""
    named = {"namespace_id": namespace_id, "names": list(names)}
    found: str | None = (await transaction.connection.execute(_ANY_TAKEN, named)).scalar_one_or_none()
    return found


async def insert_services(transaction: Transaction, wanted: Sequence[Service]) -> list[Service]:
    """Inserts Services without an owner with one statement; returns them as stored, ordered by id."""
    rows = orjson.dumps([_owned_row(each) for each in wanted]).decode()
    parameters = {"rows": rows, "user_id": transaction.actor.user_id}
    ids = (await transaction.connection.execute(_INSERT_MANY, parameters)).scalars()
    return await get_many(transaction, list(ids))


async def update_service(transaction: Transaction, stored: Service, wanted: Service) -> Service:
    """Writes the desired state of a Service that the transaction has locked, as its next generation."""
    return await _update(transaction, stored, _changeable(wanted))


async def mark_for_deletion(transaction: Transaction, stored: Service) -> Service:
    """Marks for deletion a Service that the transaction has locked."""
    return await _update(transaction, stored, await deletion_values(transaction))


async def lock_named(transaction: Transaction, namespace_id: int, names: Sequence[str]) -> list[Service]:
    """Returns the Services with these names, ordered by id, locked until the transaction ends."""
    parameters = {"namespace_id": namespace_id, "names": list(names)}
    ids = list((await transaction.connection.execute(_LOCK_NAMED, parameters)).scalars())
    return await get_many(transaction, ids)


async def update_services(transaction: Transaction, wanted: Sequence[Service]) -> list[Service]:
    """Writes the desired states of locked Services with one statement; returns them ordered by id."""
    if not wanted:
        return []
    rows = orjson.dumps([_owned_row(each) for each in wanted]).decode()
    parameters = {"rows": rows, "user_id": transaction.actor.user_id}
    await transaction.connection.execute(_UPDATE_MANY, parameters)
    return await get_many(transaction, [each.id for each in wanted])


async def mark_many(transaction: Transaction, ids: Sequence[int]) -> list[Service]:
    """Marks locked Services for deletion with one statement; returns them ordered by id."""
    parameters = {
        "ids": list(ids),
        "moment": await transaction.moment(),
        "user_id": transaction.actor.user_id,
    }
    await transaction.connection.execute(_MARK_MANY, parameters)
    return await get_many(transaction, ids)


async def count(transaction: ReadTransaction, namespace_id: int) -> int:
    """Returns how many Services count against the quota of a namespace."""
    query = select(func.count_services(namespace_id))
    return int((await transaction.connection.execute(query)).scalar_one())


async def count_of_their_own(transaction: ReadTransaction, namespace_id: int) -> int:
    """Returns how many Services without an owner a namespace contains, including those being deleted."""
    query = select(func.count()).where(SERVICES.c.namespace_id == namespace_id, SERVICES.c.owner.is_(None))
    return int((await transaction.connection.execute(query)).scalar_one())


async def delete_service(transaction: Transaction, service_id: int) -> None:
    """Deletes a row."""
    await transaction.connection.execute(delete(SERVICES).where(SERVICES.c.id == service_id))


async def has_service_changes(transaction: ReadTransaction) -> bool:
    """Returns whether there are service changes, or rows whose container was deleted."""
    return bool((await transaction.connection.execute(_HAS_CHANGES)).scalar_one())


async def take_service_changes(transaction: Transaction, most: int) -> list[int] | None:
    """Removes the oldest service changes; returns their containers' ids, locked. None if another server does this."""
    if not (await transaction.connection.execute(_TAKE_TURN)).scalar_one():
        return None
    taken = (await transaction.connection.execute(_TAKE_CHANGES, {"most": most})).scalars()
    ids = {"ids": sorted(set(taken))}
    return list((await transaction.connection.execute(_LOCK_OWNERS, ids)).scalars())


async def owned_services(transaction: Transaction, containers: Sequence[int]) -> list[Service]:
    """Locks and returns the rows of these containers' Services, and all rows whose container was deleted."""
    ids = (await transaction.connection.execute(_LOCK_OWNED, {"ids": list(containers)})).scalars()
    return await get_many(transaction, list(ids))


async def insert_owned(transaction: Transaction, services: Collection[Service]) -> list[Service]:
    """Inserts rows and returns them as stored."""
    return await _written_owned(transaction, _INSERT_OWNED, services)


async def update_owned(transaction: Transaction, services: Collection[Service]) -> list[Service]:
    """Writes the desired state of locked rows and returns them as stored."""
    return await _written_owned(transaction, _UPDATE_OWNED, services)


async def mark_owned(transaction: Transaction, ids: Sequence[int]) -> list[Service]:
    """Marks locked rows for deletion and returns them as stored."""
    if not ids:
        return []
    await transaction.connection.execute(_MARK_OWNED, {"ids": list(ids)})
    return await get_many(transaction, ids)


async def delete_owned(transaction: Transaction, ids: Sequence[int]) -> None:
    """Deletes locked rows."""
    if ids:
        await transaction.connection.execute(_DELETE_OWNED, {"ids": list(ids)})


def _changeable(wanted: Service) -> dict[str, Any]:
    return {
        "type": wanted.type,
        "spec": msgspec.to_builtins(wanted.spec),
        "labels": wanted.labels,
        "annotations": wanted.annotations,
        "drift_policy": wanted.drift_policy,
    }


async def _update(transaction: Transaction, stored: Service, values: dict[str, Any]) -> Service:
    await write_generation(transaction, SERVICES, stored.id, stored, values)
    return await _stored(transaction, stored.id)


async def _stored(transaction: ReadTransaction, service_id: int) -> Service:
    found = await get(transaction, service_id)
    assert found is not None, "a row that was just written can be read back"
    return found


async def _written_owned(
    transaction: Transaction, statement: Any, services: Collection[Service]
) -> list[Service]:
    if not services:
        return []
    rows = orjson.dumps([_owned_row(each) for each in services]).decode()
    ids = (await transaction.connection.execute(statement, {"rows": rows})).scalars()
    return await get_many(transaction, list(ids))


def _owned_row(service: Service) -> dict[str, Any]:
    return {
        "id": service.id,
        "uid": service.uid or None,
        "name": service.name,
        "namespace_id": service.namespace_id,
        "owner": service.owner,
        "owner_id": service.owner_id,
        "type": service.type,
        "spec": msgspec.to_builtins(service.spec),
        "labels": service.labels,
        "annotations": service.annotations,
        "drift_policy": service.drift_policy,
    }


def _service(row: Row) -> Service:
    return Service(
        id=row.id,
        uid=str(row.uid),
        name=row.name,
        type=row.type,
        spec=msgspec.convert(row.spec, ServiceFields),
        labels=row.labels,
        annotations=row.annotations,
        drift_policy=row.drift_policy,
        owner=row.owner or "",
        owner_id=row.owner_id,
        taken_over=row.taken_over or "",
        container_uids=tuple(row.container_uids),
        observed=ObservedService(
            status=row.status,
            reason=row.reason or "",
            message=row.message or "",
            addresses=tuple(row.addresses),
            node_ports=tuple(row.node_ports),
            ready_endpoints=row.ready_endpoints,
            endpoints=row.endpoints,
            conditions=msgspec.convert(row.conditions, tuple[Condition, ...], strict=False),
            stale_since=row.stale_since,
        ),
        **reconciled_fields(row),
    )
