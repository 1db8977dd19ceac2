"""SQL about containers; see `rows` for how one is read and `child_rows` for how it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import NamedTuple, get_args

from sqlalchemy import (
    ARRAY,
    BigInteger,
    and_,
    any_,
    bindparam,
    func,
    not_,
    or_,
    select,
    text,
)

from pilothouse_server.containers.model import CachedContainer, Container, Status
from pilothouse_server.containers.repository.rows import WHOLE, container_of
from pilothouse_server.containers.tables import (
    CONTAINER_IMAGES,
    CONTAINERS,
)
from pilothouse_server.containers.workload_settings import WorkloadKind
from pilothouse_server.errors import already_exists
from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.errors import LABEL_LOST
from pilothouse_server.runtime.event_loop import others_first
from pilothouse_server.store.cached_rows import CachedRows
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import (
    FilterField,
    FilterKind,
    filter_fields,
)
from pilothouse_server.store.in_namespaces import Matching, read_matching
from pilothouse_server.store.paging import (
    OrderField,
)
from pilothouse_server.store.reconciled import CLUSTER_IS_WATCHED, NAMESPACE_IS_LOOKED_AT
from pilothouse_server.store.references import NAMESPACES, USERS, reconciling
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.labels import LabelSelector


class PlacedContainer(NamedTuple):
    """A container, and the last known state of its namespace on the cluster.

    `namespace_applied`: the namespace was applied. `namespace_lost`: it no longer belongs to the platform there.
    `namespace_adopting`: it must be taken over there first. `namespace_unverified`: the container was not applied
    yet, and the owner of the Kubernetes namespace may have changed without being observed. `read_at`: the database's
    time of this state.
    """

    container: Container
    namespace_applied: bool
    namespace_lost: bool
    namespace_adopting: bool
    namespace_unverified: bool
    read_at: datetime


register_constraint("uq_containers_name", lambda: already_exists("container", "of this name"))

_STATUSES = {name.upper(): name for name in get_args(Status)}
# The kinds as the document contains them.
_KINDS = {name.upper(): name for name in get_args(WorkloadKind)}
_POLICIES = {name.upper(): name for name in ("repair", "report", "adopt")}
_FILTERS = {
    "status": FilterField(CONTAINERS.c.status, FilterKind.ENUM, _STATUSES, "CONTAINER_STATUS_"),
    "drift_policy": FilterField(CONTAINERS.c.drift_policy, FilterKind.ENUM, _POLICIES, "DRIFT_POLICY_"),
    "workload_kind": FilterField(
        func.coalesce(CONTAINERS.c.spec["workload"]["type"].astext, "deployment"),
        FilterKind.ENUM,
        _KINDS,
        "WORKLOAD_KIND_",
    ),
    "namespace": FilterField(NAMESPACES.c.name),
    # The image as it is requested and returned; its parts are columns of the image's row.
    "image": FilterField(
        CONTAINERS.c.spec["image"].astext,
        parts=filter_fields(CONTAINER_IMAGES, "repository name tag digest"),
    ),
    **filter_fields(
        CONTAINERS,
        "name display_name uid kubernetes_name phase reason message replicas ready_replicas restart_count"
        " deployment_name replica_set_name pod_name pod_ip host_ip started_at finished_at stale_since generation"
        " observed_generation create_time update_time delete_time labels annotations",
    ),
    **{
        name: FilterField(CONTAINERS.c.spec[name].astext)
        for name in ("service_account", "image_pull_policy", "pod_container_name", "priority_class")
    },
    "created_by": FilterField(USERS.c.username),
    "reconciling": FilterField(reconciling(CONTAINERS), FilterKind.BOOLEAN),
}
_NAMED = (NAMESPACES.c.name == bindparam("namespace"), CONTAINERS.c.name == bindparam("name"))
_IDENTIFIED = CONTAINERS.c.id == bindparam("container_id")
_FIND = WHOLE.where(*_NAMED)
_GET = WHOLE.where(_IDENTIFIED)
# One statement for any number of ids, so that it is prepared only once.
_GET_MANY = WHOLE.where(CONTAINERS.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))).order_by(
    CONTAINERS.c.id
)
_LOST = [{"type": APPLIED, "status": "False", "reason": LABEL_LOST}]
# The owner of a Kubernetes namespace is known while a server watches its cluster and has processed all changes of the
# namespace.
_GET_MANY_PLACED = _GET_MANY.add_columns(
    and_(NAMESPACES.c.deleted_at.is_(None), NAMESPACES.c.observed_generation > 0).label("namespace_applied"),
    NAMESPACES.c.conditions.contains(_LOST).label("namespace_lost"),
    and_(NAMESPACES.c.adopted, NAMESPACES.c.observed_generation == 0).label("namespace_adopting"),
    and_(
        CONTAINERS.c.observed_generation == 0,
        or_(NAMESPACES.c.phase == "Terminating", NAMESPACE_IS_LOOKED_AT, not_(CLUSTER_IS_WATCHED)),
    ).label("namespace_unverified"),
    func.statement_timestamp().label("read_at"),
)
# A row is locked before it is read with its parts. A single statement that waits for the row's lock would read the
# other tables as they were before the wait, or miss the row altogether.
_LOCK = select(CONTAINERS.c.id).join(NAMESPACES, NAMESPACES.c.id == CONTAINERS.c.namespace_id)
_LOCK_NAMED = _LOCK.where(*_NAMED).with_for_update(of=CONTAINERS)
_LOCK_IDENTIFIED = _LOCK.where(_IDENTIFIED).with_for_update(of=CONTAINERS)
_LOCK_FREE = _LOCK.where(_IDENTIFIED).with_for_update(of=CONTAINERS, skip_locked=True)
_LOCK_ALL = text("SELECT id FROM containers WHERE namespace_id = :id ORDER BY id FOR UPDATE")
_REMOVE_ALL = text("DELETE FROM containers WHERE namespace_id = :id")
_COUNT_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
# Triggers maintain the rows of `quota_counters`; the rows of a namespace add up to the usage of its containers.
_USAGE_OF_QUOTA = text("""
SELECT coalesce(sum(containers), 0), coalesce(sum(cpu_millicores), 0), coalesce(sum(memory_bytes), 0)
FROM quota_counters WHERE namespace_id = :namespace_id
""")
_ORDERS = {
    "name": OrderField(CONTAINERS.c.name),
    "create_time": OrderField(CONTAINERS.c.created_at),
    "status": OrderField(CONTAINERS.c.status),
}
# Containers that are converted before other tasks get a turn. The 32 that the worker loads together take 4 to 6 ms.
_CONVERTED_IN_A_TURN = 8


async def find(
    transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False
) -> Container | None:
    """Returns the container of this name, if it is in the caller's scope.

    `lock`: locks its row until the transaction ends.
    """
    named = {"namespace": namespace, "name": name}
    if lock:
        locked = (await transaction.connection.execute(_LOCK_NAMED, named)).scalar_one_or_none()
        return None if locked is None else await get(transaction, locked)
    row = (await transaction.connection.execute(_FIND, named)).one_or_none()
    return None if row is None else container_of(row)


async def get(
    transaction: ReadTransaction, container_id: int, *, lock: bool = False, skip_locked: bool = False
) -> Container | None:
    """Returns the container with this id."""
    identified = {"container_id": container_id}
    if lock:
        statement = _LOCK_FREE if skip_locked else _LOCK_IDENTIFIED
        if (await transaction.connection.execute(statement, identified)).first() is None:
            return None
    row = (await transaction.connection.execute(_GET, identified)).one_or_none()
    return None if row is None else container_of(row)


async def get_many(transaction: ReadTransaction, ids: Sequence[int]) -> list[Container]:
    """Returns the containers with these ids, in the order of their ids; leaves out missing ones."""
    rows = (await transaction.connection.execute(_GET_MANY, {"ids": list(ids)})).all()
    return [container_of(row) for row in rows]


async def get_many_placed(transaction: ReadTransaction, ids: Sequence[int]) -> list[PlacedContainer]:
    """Returns the containers with these ids, each with the state of its namespace on the cluster."""
    rows = (await transaction.connection.execute(_GET_MANY_PLACED, {"ids": list(ids)})).all()
    found = []
    for number, row in enumerate(rows):
        if number and number % _CONVERTED_IN_A_TURN == 0:
            await others_first()
        found.append(
            PlacedContainer(
                container_of(row),
                row.namespace_applied,
                row.namespace_lost,
                row.namespace_adopting,
                bool(row.namespace_unverified),
                row.read_at,
            )
        )
    return found


CACHED: CachedRows[CachedContainer, Container] = CachedRows(
    "container",
    CONTAINERS,
    get_many,
    lambda row: CachedContainer(
        row.id, row.namespace_id, row.creator, row.message, row.status, row.started_at
    ),
    filters=_FILTERS,
    orders=_ORDERS,
    columns=[CONTAINERS.c.status, CONTAINERS.c.started_at],
    joined=(CONTAINER_IMAGES, CONTAINER_IMAGES.c.id == CONTAINERS.c.image_id),
)


async def stream_containers(
    transaction: ReadTransaction,
    *,
    namespace_id: int | None = None,
    name: str = "",
    status: str = "",
    selector: LabelSelector | None = None,
    visible: Collection[int] | None = None,
) -> AsyncIterator[Container]:
    """Yields every container that matches, sorted by namespace and name."""
    wanted = Matching(namespace_id, selector, visible, name, status)
    async for rows in read_matching(transaction.connection, WHOLE, CONTAINERS, wanted):
        for row in rows:
            yield container_of(row)


async def remove_all(transaction: Transaction, namespace_id: int) -> Sequence[Container]:
    """Removes every container of a namespace, with all that belongs to it; returns them as they were."""
    locked = await transaction.connection.execute(_LOCK_ALL, {"id": namespace_id})
    found = await get_many(transaction, [row.id for row in locked])
    await transaction.connection.execute(_REMOVE_ALL, {"id": namespace_id})
    return found


async def count(transaction: ReadTransaction, namespace_id: int) -> int:
    """Returns how many containers a namespace has, including those that are being deleted."""
    query = select(func.count()).where(CONTAINERS.c.namespace_id == namespace_id)
    return int((await transaction.connection.execute(query)).scalar_one())


async def usage_of_quota(transaction: ReadTransaction, namespace_id: int) -> tuple[int, int, int]:
    """Returns containers, millicores and bytes that count against a namespace's quota."""
    counted = await transaction.connection.execute(_USAGE_OF_QUOTA, {"namespace_id": namespace_id})
    count, cpu, memory = counted.one()
    return int(count), int(cpu), int(memory)


async def count_alone(transaction: Transaction, namespace_id: int) -> None:
    """Takes the counting lock of a namespace's quota, which the transaction holds until it ends."""
    await transaction.connection.execute(_COUNT_ALONE, {"key": f"quota/{namespace_id}"})
