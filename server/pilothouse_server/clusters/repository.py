"""All SQL about clusters.

The row of a deregistered cluster stays, without its credentials, because the rows of its ended namespaces refer to its
name. A cluster that is registered under that name again reuses the row, under a new uid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import delete, func, insert, select, text, update

from pilothouse_server.clusters.model import (
    ORPHANS_UNDECIDED,
    Cluster,
    ObjectKind,
    OrphanedObject,
    OrphanState,
    OrphanSweeps,
)
from pilothouse_server.clusters.tables import CLUSTERS, ORPHANS
from pilothouse_server.encryption.envelopes import Sealed
from pilothouse_server.errors import already_exists
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.reconciled import OBSERVE
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

Lock = Literal["", "share", "update"]

register_constraint("uq_clusters_name", lambda: already_exists("cluster", "of this name"))

_STATUS = {
    name.upper(): name for name in ("pending", "healthy", "unreachable", "unauthorized", "deregistering")
}
_FILTERS = {
    "status": FilterField(CLUSTERS.c.status, FilterKind.ENUM, _STATUS, "CLUSTER_STATUS_"),
    **filter_fields(
        CLUSTERS,
        "name display_name api_server reason message version uid last_seen_time stale_since create_time"
        " update_time credentials_expire_time labels forbid_blocking_budgets",
    ),
}
_ORDERS = {"name": OrderField(CLUSTERS.c.name), "create_time": OrderField(CLUSTERS.c.created_at)}
_SECRET = ("credentials", "data_key", "key_id")
_UNDECIDED = (
    select(func.count())
    .where(ORPHANS.c.cluster_name == CLUSTERS.c.name, ORPHANS.c.state == "undecided")
    .scalar_subquery()
)
_SHOWN = [
    *(column for column in CLUSTERS.c if column.name not in _SECRET),
    CLUSTERS.c.orphans_decided_in.is_distinct_from(func.current_history()).label("orphans_held"),
    CLUSTERS.c.orphans_seen_in.is_not_distinct_from(func.current_history()).label("orphans_listed"),
    _UNDECIDED.label("orphans_undecided"),
]
_ORPHAN_STATES = {name.upper(): name for name in ("undecided", "left", "kept", "deleting")}
_ORPHAN_FILTERS = {
    "state": FilterField(ORPHANS.c.state, FilterKind.ENUM, _ORPHAN_STATES, "ORPHAN_STATE_"),
    "uid": FilterField(ORPHANS.c.object_uid),
    "first_seen_time": FilterField(ORPHANS.c.first_seen_at, FilterKind.TIMESTAMP),
    **filter_fields(ORPHANS, "kind kubernetes_namespace name"),
}
_ORPHAN_ORDERS = {
    "name": OrderField(ORPHANS.c.name),
    "kind": OrderField(ORPHANS.c.kind),
    "first_seen_time": OrderField(ORPHANS.c.first_seen_at),
}

# Initial values of a cluster's row, also of a row that is reused.
_FRESH = (
    "status = 'pending', reason = NULL, message = NULL, version = NULL, last_seen_at = NULL, stale_since = NULL, "
    "labels = '{}', annotations = '{}', uid = gen_random_uuid(), resource_version = 1, created_at = now(), "
    "object_kinds = DEFAULT, shared_gateways = DEFAULT, forbid_blocking_budgets = DEFAULT, "
    "updated_at = now(), deleted_at = NULL, orphans_decided_in = DEFAULT, orphans_seen_in = NULL"
)
_PUT_CONFIGURED = text(
    "INSERT INTO clusters (name, display_name, api_server) VALUES (:name, :name, :api_server) "
    "ON CONFLICT (name) DO UPDATE SET api_server = EXCLUDED.api_server, updated_at = now(), "
    "resource_version = clusters.resource_version + 1 "
    "WHERE clusters.api_server IS DISTINCT FROM EXCLUDED.api_server AND clusters.deleted_at IS NULL"
)
_REVIVE = text(f"UPDATE clusters SET {_FRESH} WHERE name = :name AND deleted_at IS NOT NULL RETURNING id")  # noqa: S608
_END = text(
    "UPDATE clusters SET deleted_at = now(), updated_at = now(), credentials = NULL, data_key = NULL, key_id = NULL, "
    "credentials_expires_at = NULL, updated_by = :user_id WHERE id = :id"
)
_HELD = text(
    "SELECT count(DISTINCT n.id) AS namespaces, "
    "(SELECT count(*) FROM containers c JOIN namespaces h ON h.id = c.namespace_id WHERE h.cluster_name = :name) "
    "AS containers FROM namespaces n WHERE n.cluster_name = :name AND n.deleted_at IS NULL"
)
_DEREGISTERED = text(
    "SELECT name FROM clusters AS c WHERE status = 'deregistering' AND deleted_at IS NULL AND NOT EXISTS "
    "(SELECT FROM namespaces AS n WHERE n.cluster_name = c.name AND n.deleted_at IS NULL)"
)


# The server's name is the part of the owner before the slash (see `reconcile.reconciler`).
_LEADERS = text(
    "SELECT name, split_part(owner, '/', 1) AS server FROM leases "
    "WHERE starts_with(name, CAST(:observe AS text)) AND owner IS NOT NULL AND expires_at > clock_timestamp()"
)
_REMOVE_ORPHANS = text("""
DELETE FROM orphans AS o USING unnest(CAST(:kinds AS text[]), CAST(:namespaces AS text[]), CAST(:names AS text[]))
    AS taken(kind, kubernetes_namespace, name)
WHERE o.cluster_name = :cluster_name AND o.kind = taken.kind
  AND o.kubernetes_namespace = taken.kubernetes_namespace AND o.name = taken.name
""")


async def find(transaction: ReadTransaction, name: str, lock: Lock = "") -> Cluster | None:
    """Returns the registered cluster of this name.

    `lock` holds its row until the transaction ends.
    """
    query = select(*_SHOWN).where(CLUSTERS.c.name == name, CLUSTERS.c.deleted_at.is_(None))
    if lock:
        query = query.with_for_update(read=lock == "share", key_share=lock == "update")
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _cluster(row)


async def list_clusters(
    transaction: ReadTransaction, page: PageRequest
) -> tuple[Sequence[Cluster], NextPage]:
    """Returns one page of clusters, and where the next page begins."""
    query = select(*_SHOWN).where(CLUSTERS.c.deleted_at.is_(None), compile_filter(page.filter, _FILTERS))
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=CLUSTERS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_cluster(row) for row in rows], next_page


async def put_configured(transaction: Transaction, name: str, api_server: str) -> Cluster:
    """Creates or updates the row of a cluster that the server's configuration reaches."""
    await transaction.connection.execute(_REVIVE, {"name": name})
    await transaction.connection.execute(_PUT_CONFIGURED, {"name": name, "api_server": api_server})
    return await _whole(transaction, name)


async def add(transaction: Transaction, name: str, api_server: str) -> Cluster:
    """Adds a cluster's row, or reuses that of a former cluster.

    A constraint raises AlreadyExists.
    """
    revived = (await transaction.connection.execute(_REVIVE, {"name": name})).first()
    if revived is None:
        values = {"name": name, "created_by": transaction.actor.user_id}
        await transaction.connection.execute(insert(CLUSTERS).values(**values, api_server=api_server))
    else:
        # The row is another cluster from now on, with another creator.
        await transaction.connection.execute(
            update(CLUSTERS)
            .where(CLUSTERS.c.id == revived.id)
            .values(api_server=api_server, created_by=transaction.actor.user_id)
        )
    return await _whole(transaction, name)


async def change(transaction: Transaction, cluster: Cluster, values: Mapping[str, Any]) -> Cluster:
    """Changes columns of a row that the transaction has locked, and raises its version."""
    statement = (
        update(CLUSTERS)
        .where(CLUSTERS.c.id == cluster.id)
        .values(
            **values,
            resource_version=CLUSTERS.c.resource_version + 1,
            updated_at=func.now(),
            updated_by=transaction.actor.user_id,
        )
    )
    await transaction.connection.execute(statement)
    return await _whole(transaction, cluster.name)


async def find_sealed(transaction: ReadTransaction, name: str) -> tuple[str, Sealed | None] | None:
    """Returns uid and encrypted credentials of a cluster; None if it is not registered."""
    columns = (CLUSTERS.c.uid, CLUSTERS.c.credentials, CLUSTERS.c.data_key, CLUSTERS.c.key_id)
    query = select(*columns).where(CLUSTERS.c.name == name, CLUSTERS.c.deleted_at.is_(None))
    row = (await transaction.connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.credentials is None:
        return str(row.uid), None
    return str(row.uid), Sealed(bytes(row.credentials), bytes(row.data_key or b""), row.key_id)


async def count_held(transaction: ReadTransaction, name: str) -> dict[str, int]:
    """Returns the numbers of namespaces and containers on a cluster."""
    row = (await transaction.connection.execute(_HELD, {"name": name})).one()
    return {"namespaces": row.namespaces, "containers": row.containers}


async def end(transaction: Transaction, cluster: Cluster) -> None:
    """Ends a row that the transaction has locked, and deletes its credentials."""
    await transaction.connection.execute(delete(ORPHANS).where(ORPHANS.c.cluster_name == cluster.name))
    await transaction.connection.execute(_END, {"id": cluster.id, "user_id": transaction.actor.user_id})


async def leaders(transaction: ReadTransaction) -> dict[str, str]:
    """Returns the servers that observe clusters, by the clusters' names. For the system role."""
    found = await transaction.connection.execute(_LEADERS, {"observe": OBSERVE})
    return {row.name.removeprefix(OBSERVE): row.server for row in found}


async def deregistered(transaction: ReadTransaction) -> list[str]:
    """Returns the clusters that are being deregistered and have no namespaces any more."""
    return [row.name for row in await transaction.connection.execute(_DEREGISTERED)]


async def list_orphans(
    transaction: ReadTransaction, cluster: str, page: PageRequest
) -> tuple[Sequence[OrphanedObject], NextPage]:
    """Returns one page of a cluster's orphans, and where the next page begins."""
    query = select(ORPHANS).where(
        ORPHANS.c.cluster_name == cluster, compile_filter(page.filter, _ORPHAN_FILTERS)
    )
    order = parse_order_by(page.order_by, _ORPHAN_ORDERS, default="name", unique=ORPHANS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_orphan(row) for row in rows], next_page


async def find_orphans(
    transaction: ReadTransaction,
    cluster: str,
    *,
    uids: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> list[OrphanedObject]:
    """Returns orphans of a cluster by their uids, or all undecided ones.

    Only of `kinds`, if given.
    """
    chosen = ORPHANS.c.state == "undecided" if uids is None else ORPHANS.c.object_uid.in_(uids)
    query = select(ORPHANS).where(ORPHANS.c.cluster_name == cluster, chosen).order_by(ORPHANS.c.id)
    if kinds is not None:
        query = query.where(ORPHANS.c.kind.in_(kinds))
    return [_orphan(row) for row in (await transaction.connection.execute(query)).all()]


async def orphan_uids(transaction: ReadTransaction, cluster: str) -> frozenset[str]:
    """Returns the uids of a cluster's orphans, except those that somebody decided to delete."""
    query = select(ORPHANS.c.object_uid).where(
        ORPHANS.c.cluster_name == cluster, ORPHANS.c.state != "deleting"
    )
    return frozenset(row.object_uid for row in (await transaction.connection.execute(query)).all())


async def decide_orphans(
    transaction: Transaction, cluster: str, uids: Sequence[str], state: OrphanState
) -> None:
    """Writes decisions about orphans."""
    await transaction.connection.execute(
        update(ORPHANS)
        .where(ORPHANS.c.cluster_name == cluster, ORPHANS.c.object_uid.in_(uids))
        .values(state=state, decided_at=func.now(), decided_by=transaction.actor.user_id)
    )


async def remove_orphans(
    transaction: Transaction, cluster: str, objects: Sequence[tuple[str, str, str]]
) -> None:
    """Removes rows of objects that are no orphans any more, by kind, Kubernetes namespace and name."""
    kinds, namespaces, names = zip(*objects, strict=True)
    parameters = {
        "cluster_name": cluster,
        "kinds": list(kinds),
        "namespaces": list(namespaces),
        "names": list(names),
    }
    await transaction.connection.execute(_REMOVE_ORPHANS, parameters)


async def sweeps(transaction: ReadTransaction, cluster: Cluster) -> OrphanSweeps:
    """Returns the state of a cluster's orphans and of their sweeps."""
    query = select(*_SHOWN).where(CLUSTERS.c.id == cluster.id)
    row = (await transaction.connection.execute(query)).one()
    return OrphanSweeps(row.orphans_listed, row.orphans_held, row.orphans_undecided)


async def end_hold(transaction: Transaction, cluster: Cluster) -> None:
    """Lets the sweep delete leftovers by itself again, in the present history."""
    await transaction.connection.execute(
        update(CLUSTERS)
        .where(CLUSTERS.c.id == cluster.id)
        .values(orphans_decided_in=func.current_history(), updated_at=func.now())
    )


async def count_orphans(transaction: ReadTransaction) -> tuple[dict[tuple[str, str], int], dict[str, bool]]:
    """Returns orphan counts by cluster and state, and by cluster whether deletion is held."""
    counts = select(ORPHANS.c.cluster_name, ORPHANS.c.state, func.count().label("orphans")).group_by(
        ORPHANS.c.cluster_name, ORPHANS.c.state
    )
    held = select(
        CLUSTERS.c.name,
        CLUSTERS.c.orphans_decided_in.is_distinct_from(func.current_history()).label("orphans_held"),
    ).where(CLUSTERS.c.deleted_at.is_(None))
    counted = (await transaction.connection.execute(counts)).all()
    clusters = (await transaction.connection.execute(held)).all()
    return (
        {(row.cluster_name, row.state): row.orphans for row in counted},
        {row.name: row.orphans_held for row in clusters},
    )


async def _whole(transaction: ReadTransaction, name: str) -> Cluster:
    found = await find(transaction, name)
    assert found is not None, "a row that was just written can be read back"
    return found


def _cluster(row: Row) -> Cluster:
    return Cluster(
        id=row.id,
        uid=str(row.uid),
        name=row.name,
        api_server=row.api_server,
        display_name=row.display_name or "",
        labels=row.labels,
        status=row.status,
        reason=row.reason or "",
        message=row.message or "",
        version=row.version or "",
        last_seen_at=row.last_seen_at,
        stale_since=row.stale_since,
        credentials_expires_at=row.credentials_expires_at,
        resource_version=row.resource_version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        conditions=_conditions(row),
        object_kinds=msgspec.convert(row.object_kinds, tuple[ObjectKind, ...]),
        shared_gateways=tuple(row.shared_gateways),
        forbid_blocking_budgets=row.forbid_blocking_budgets,
    )


def _conditions(row: Row) -> tuple[Condition, ...]:
    if not row.orphans_held:
        return ()
    count = row.orphans_undecided
    found = (
        f"{count} object{'' if count == 1 else 's'}" if row.orphans_listed else "objects (not counted yet)"
    )
    message = (
        f"a new history of the database began, without {found} that this cluster has; none is deleted until an "
        "administrator decides (ListOrphans, ResolveOrphans)"
    )
    return (Condition(ORPHANS_UNDECIDED, "True", "NewHistory", message),)


def _orphan(row: Row) -> OrphanedObject:
    return OrphanedObject(
        cluster_name=row.cluster_name,
        kind=row.kind,
        kubernetes_namespace=row.kubernetes_namespace,
        name=row.name,
        uid=row.object_uid,
        state=row.state,
        first_seen_at=row.first_seen_at,
        decided_at=row.decided_at,
    )
