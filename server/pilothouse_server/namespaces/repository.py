"""SQL for namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, func, insert, select, text, update

from pilothouse_server.errors import FailedPrecondition, already_exists
from pilothouse_server.namespaces.model import CachedNamespace, Namespace, Quota
from pilothouse_server.namespaces.tables import CLUSTERS, NAMESPACES
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import (
    FilterField,
    FilterKind,
    compile_filter,
    filter_fields,
    label_selector_condition,
)
from pilothouse_server.store.paging import (
    NextPage,
    OrderColumn,
    OrderField,
    OrderSpec,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
    read_in_pages,
)
from pilothouse_server.store.references import USERS, reconciling
from pilothouse_server.store.rendered import RENDERED, is_cached, with_missing
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.values.resources import Condition, NamespaceId

Lock = Literal["", "share", "update"]

register_constraint("uq_namespaces_name", lambda: already_exists("namespace", "of this name"))
register_constraint(
    "uq_namespaces_cluster_kubernetes_name", lambda: already_exists("kubernetes namespace", "of this name")
)

register_constraint(
    "ex_namespaces_allowed_hosts",
    lambda: FailedPrecondition(
        "namespace.allowed_hosts overlaps hosts of another namespace of the cluster; choose others",
        reason="HOSTS_OVERLAP",
        metadata={"field": "namespace.allowed_hosts"},
    ),
)
_TAKEN_HOSTS = text("SELECT taken_hosts(:cluster, NULL, CAST(:hosts AS text[]))")
_NAMES = {name.upper(): name for name in ("active", "inactive")}
_POLICIES = {name.upper(): name for name in ("open", "protected")}
_FILTERS = {
    "network_policies": FilterField(
        NAMESPACES.c.network_policies, FilterKind.ENUM, _POLICIES, "NETWORK_POLICIES_"
    ),
    "status": FilterField(NAMESPACES.c.status, FilterKind.ENUM, _NAMES, "NAMESPACE_STATUS_"),
    **filter_fields(
        NAMESPACES,
        "name display_name description cluster_name kubernetes_name phase reason message uid generation"
        " observed_generation create_time update_time delete_time labels annotations pod_security_level"
        " legal_hold enforce_on_cluster",
    ),
    "created_by": FilterField(USERS.c.username),
    "stale_since": FilterField(CLUSTERS.c.stale_since, FilterKind.TIMESTAMP),
    "reconciling": FilterField(reconciling(NAMESPACES), FilterKind.BOOLEAN),
}
_ORDERS = {"name": OrderField(NAMESPACES.c.name), "create_time": OrderField(NAMESPACES.c.created_at)}
_LIVING = select().select_from(NAMESPACES).where(NAMESPACES.c.deleted_at.is_(None))
_BY_NAME = OrderSpec((OrderColumn("name", NAMESPACES.c.name),))
# The row stays, because audit records refer to it.
_END = (
    text("UPDATE namespaces SET deleted_at = now(), status = 'inactive', updated_at = now() WHERE id = :id"),
    text("DELETE FROM reconcile_work WHERE namespace_id = :id"),
)


def _namespaces() -> Select[Any]:
    return (
        select(
            NAMESPACES,
            USERS.c.username.label("creator"),
            CLUSTERS.c.stale_since.label("cluster_stale_since"),
        )
        .select_from(
            NAMESPACES.outerjoin(USERS, USERS.c.id == NAMESPACES.c.created_by).outerjoin(
                CLUSTERS, CLUSTERS.c.name == NAMESPACES.c.cluster_name
            )
        )
        .where(NAMESPACES.c.deleted_at.is_(None))
    )


_GET = _namespaces().where(NAMESPACES.c.id == bindparam("namespace_id"))
_GET_MANY = (
    _namespaces().where(NAMESPACES.c.id.in_(bindparam("ids", expanding=True))).order_by(NAMESPACES.c.id)
)
_NAMED = _namespaces().where(NAMESPACES.c.name == bindparam("name"))
_FIND: dict[Lock, Select[Any]] = {
    "": _NAMED,
    "share": _NAMED.with_for_update(read=True, of=NAMESPACES),
    # NO KEY UPDATE lets other transactions insert rows that refer to the namespace, because their foreign keys take KEY
    # SHARE.
    "update": _NAMED.with_for_update(key_share=True, of=NAMESPACES),
}
_CALL = text(
    "SELECT id, namespace_id, creator, message, stale_since FROM read_namespace(:user_id, :name, :format)"
)


@lru_cache(maxsize=8)
def cached(message_format: int | ColumnElement[int]) -> Select[Any]:
    """Selects the cached messages of existing namespaces.

    The database function `read_namespace` is this select for one name.
    """
    return (
        select(
            NAMESPACES.c.id,
            NAMESPACES.c.id.label("namespace_id"),
            USERS.c.username.label("creator"),
            RENDERED.c.message,
            CLUSTERS.c.stale_since,
        )
        .select_from(
            NAMESPACES.outerjoin(USERS, USERS.c.id == NAMESPACES.c.created_by)
            .outerjoin(CLUSTERS, CLUSTERS.c.name == NAMESPACES.c.cluster_name)
            .outerjoin(RENDERED, is_cached("namespace", NAMESPACES, message_format))
        )
        .where(NAMESPACES.c.deleted_at.is_(None))
    )


async def find_cached(store: Store, user_id: int, name: str, message_format: int) -> CachedNamespace | None:
    """Returns the cached message of the namespace of this name, if the caller may see it, in one round trip."""
    rows = await store.call(user_id, _CALL, {"name": name, "format": message_format})
    return _cached_namespace(rows[0]) if rows else None


def _cached_namespace(row: Any) -> CachedNamespace:
    return CachedNamespace(row.id, row.namespace_id, row.creator, row.message, row.stale_since)


async def find(transaction: ReadTransaction, name: str, lock: Lock = "") -> Namespace | None:
    """Returns the existing namespace of this name, if the caller may see it.

    `lock` locks its row until the transaction ends.
    """
    row = (await transaction.connection.execute(_FIND[lock], {"name": name})).one_or_none()
    return None if row is None else _namespace(row)


async def get(transaction: ReadTransaction, namespace_id: int) -> Namespace | None:
    """Returns the existing namespace with this id."""
    row = (await transaction.connection.execute(_GET, {"namespace_id": namespace_id})).one_or_none()
    return None if row is None else _namespace(row)


async def get_many(transaction: ReadTransaction, ids: Sequence[int]) -> list[Namespace]:
    """Returns the existing namespaces with these ids, ordered by id; missing ones are left out."""
    rows = await transaction.connection.execute(_GET_MANY, {"ids": list(ids)})
    return [_namespace(row) for row in rows.all()]


async def by_kubernetes_names(
    transaction: ReadTransaction, cluster: str, names: Sequence[str]
) -> dict[str, Namespace]:
    """Returns the existing namespaces of a cluster with these Kubernetes names, by Kubernetes name."""
    query = _namespaces().where(
        NAMESPACES.c.cluster_name == cluster,
        NAMESPACES.c.kubernetes_name.in_(names),
    )
    found = [_namespace(row) for row in (await transaction.connection.execute(query)).all()]
    return {namespace.kubernetes_name: namespace for namespace in found}


async def insert_namespace(transaction: Transaction, values: Mapping[str, Any]) -> Namespace:
    """Inserts a row and returns it."""
    statement = (
        insert(NAMESPACES)
        .values(**values, created_by=transaction.actor.user_id, updated_by=transaction.actor.user_id)
        .returning(NAMESPACES.c.id)
    )
    namespace_id = (await transaction.connection.execute(statement)).scalar_one()
    return await _whole(transaction, namespace_id)


async def taken_hosts(transaction: Transaction, cluster: str, hosts: Sequence[str]) -> list[str]:
    """Returns the patterns that overlap hosts of a namespace of the cluster; other calls wait until the commit."""
    result = await transaction.connection.execute(_TAKEN_HOSTS, {"cluster": cluster, "hosts": list(hosts)})
    return list(result.scalar_one())


async def update_namespace(
    transaction: Transaction, namespace: Namespace, values: Mapping[str, Any]
) -> Namespace:
    """Changes a row that the transaction has locked, raises its version, and returns it."""
    statement = (
        update(NAMESPACES)
        .where(NAMESPACES.c.id == namespace.id)
        .values(
            **values,
            resource_version=NAMESPACES.c.resource_version + 1,
            updated_at=func.now(),
            updated_by=transaction.actor.user_id,
        )
    )
    await transaction.connection.execute(statement)
    return await _whole(transaction, namespace.id)


async def list_namespaces(
    transaction: ReadTransaction,
    page: PageRequest,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
    message_format: int,
) -> tuple[Sequence[CachedNamespace | Namespace], NextPage]:
    """Returns one page of the namespaces in `visible`, and where the next page begins.

    `visible`: None for all that the caller may see. A namespace with a cached message of this format is returned as
    that message; any other is returned as a value.
    """
    query = cached(message_format).where(compile_filter(page.filter, _FILTERS))
    if selector is not None:
        query = query.where(label_selector_condition(NAMESPACES.c.labels, selector))
    if visible is not None:
        query = query.where(NAMESPACES.c.id.in_(visible))
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=NAMESPACES.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return await _ready(transaction, rows), next_page


async def _ready(transaction: ReadTransaction, rows: Sequence[Any]) -> list[CachedNamespace | Namespace]:
    return await with_missing(rows, _cached_namespace, lambda ids: get_many(transaction, ids))


async def stream_namespaces(
    transaction: ReadTransaction,
    *,
    name: str,
    status: str,
    selector: LabelSelector | None,
    message_format: int,
) -> AsyncIterator[CachedNamespace | Namespace]:
    """Yields every namespace that matches and that the caller may see, by name.

    A namespace with a cached message of this format is yielded as that message; any other is yielded as a value.
    """
    keys = _LIVING
    if name:
        keys = keys.where(NAMESPACES.c.name == name)
    if status:
        keys = keys.where(NAMESPACES.c.status == status)
    if selector is not None:
        keys = keys.where(label_selector_condition(NAMESPACES.c.labels, selector))
    whole, kept = cached(message_format), keys is _LIVING
    async for rows in read_in_pages(
        transaction.connection, whole, keys, NAMESPACES.c.id, _BY_NAME, kept=kept
    ):
        for each in await _ready(transaction, rows):
            yield each


async def on_cluster(transaction: Transaction, cluster_name: str) -> list[Namespace]:
    """Returns the existing namespaces on a cluster, locked until the transaction ends."""
    query = (
        _namespaces()
        .where(NAMESPACES.c.cluster_name == cluster_name)
        .order_by(NAMESPACES.c.id)
        .with_for_update(key_share=True, of=NAMESPACES)
    )
    return [_namespace(row) for row in (await transaction.connection.execute(query)).all()]


async def end(transaction: Transaction, namespace_id: int) -> None:
    """Ends a row that the transaction has locked, and deletes its queue rows."""
    for statement in _END:
        await transaction.connection.execute(statement, {"id": namespace_id})


async def _whole(transaction: ReadTransaction, namespace_id: int) -> Namespace:
    found = await get(transaction, namespace_id)
    assert found is not None, "a row that was just written can be read back"
    return found


def _namespace(row: Row) -> Namespace:
    return Namespace(
        id=NamespaceId(row.id),
        uid=str(row.uid),
        name=row.name,
        kubernetes_name=row.kubernetes_name,
        cluster_name=row.cluster_name,
        display_name=row.display_name or "",
        description=row.description or "",
        status=row.status,
        quota=msgspec.convert(row.resource_quota or {}, Quota),
        labels=row.labels,
        annotations=row.annotations,
        adopted=row.adopted,
        default_pod_security=row.default_pod_security,
        pod_security_level=row.pod_security_level,
        legal_hold=row.legal_hold,
        service_types=tuple(row.service_types),
        external_sources=tuple(row.external_sources),
        allowed_hosts=tuple(row.allowed_hosts),
        network_policies=row.network_policies,
        enforce_on_cluster=row.enforce_on_cluster,
        phase=row.phase or "",
        reason=row.reason or "",
        message=row.message or "",
        conditions=msgspec.convert(row.conditions, tuple[Condition, ...], strict=False),
        stale_since=row.cluster_stale_since,
        generation=row.generation,
        observed_generation=row.observed_generation,
        resource_version=row.resource_version,
        row_version=row.row_version,
        deletion_requested_at=row.deletion_requested_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.creator or "",
    )
