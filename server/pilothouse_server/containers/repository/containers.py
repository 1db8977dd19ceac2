"""SQL about containers. A container is read whole in one statement; its parts come as JSON aggregates.

The document `containers.spec` is `ContainerSpec` with the volume mounts and the image, as it was asked for,
beside it: the row of `container_images` that `image_id` names learns a digest from the nodes, which must
not change what is wanted. Environment and ports are rows; so are mounts of volumes (`container_volumes`),
beside the document, because volumes must know who uses them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.engine import Row

from pilothouse_server.containers.model import (
    Condition,
    Container,
    ContainerId,
    ContainerSpec,
    EnvVar,
    NamespaceId,
    Observed,
    Port,
    Resources,
    VolumeMount,
)
from pilothouse_server.containers.tables import (
    CONTAINER_IMAGES,
    CONTAINER_VOLUMES,
    CONTAINERS,
    CREATORS,
    ENVIRONMENT_VARIABLES,
    HOMES,
    PORT_MAPPINGS,
)
from pilothouse_server.errors import already_exists
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import (
    FilterField,
    FilterKind,
    compile_filter,
    label_selector_condition,
)
from pilothouse_server.store.paging import OrderField, PageRequest, finish_page, paginate, parse_order_by
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.labels import LabelSelector

register_constraint("uq_containers_name", lambda: already_exists("container", "of this name"))

_STATUSES = {
    name.upper(): name
    for name in ("pending", "running", "paused", "stopped", "failed", "crash_loop_back_off")
}
_FILTERS = {
    "name": FilterField(CONTAINERS.c.name),
    "status": FilterField(CONTAINERS.c.status, FilterKind.ENUM, _STATUSES, "CONTAINER_STATUS_"),
    "phase": FilterField(CONTAINERS.c.phase),
    "reason": FilterField(CONTAINERS.c.reason),
    "image": FilterField(CONTAINER_IMAGES.c.name),
    "labels": FilterField(CONTAINERS.c.labels, FilterKind.LABELS),
}
_ORDERS = {
    "name": OrderField(CONTAINERS.c.name),
    "create_time": OrderField(CONTAINERS.c.created_at),
    "status": OrderField(CONTAINERS.c.status),
}
_SOURCES = {
    "config_map": "SELECT name FROM config_maps WHERE namespace_id = :id AND name = ANY (:names)",
    "secret": "SELECT name FROM secrets WHERE namespace_id = :id AND name = ANY (:names)",
    "volume": "SELECT name FROM volumes WHERE namespace_id = :id AND name = ANY (:names)",
}


def _containers() -> Select[Any]:
    env = (
        select(
            func.jsonb_agg(
                aggregate_order_by(
                    func.to_jsonb(text("environment_variables")), ENVIRONMENT_VARIABLES.c.position.asc()
                )
            )
        )
        .select_from(ENVIRONMENT_VARIABLES)
        .where(
            ENVIRONMENT_VARIABLES.c.container_id == CONTAINERS.c.id,
            ENVIRONMENT_VARIABLES.c.container_name.is_(None),
        )
        .scalar_subquery()
    )
    ports = (
        select(
            func.jsonb_agg(aggregate_order_by(func.to_jsonb(text("port_mappings")), PORT_MAPPINGS.c.id.asc()))
        )
        .select_from(PORT_MAPPINGS)
        .where(PORT_MAPPINGS.c.container_id == CONTAINERS.c.id)
        .scalar_subquery()
    )
    return select(
        CONTAINERS,
        HOMES.c.name.label("namespace_name"),
        HOMES.c.cluster_name,
        HOMES.c.kubernetes_name.label("kubernetes_namespace"),
        CREATORS.c.username.label("creator"),
        env.label("env"),
        ports.label("ports"),
    ).select_from(
        # An ended namespace holds no containers, so its rows need not be told apart here.
        CONTAINERS.join(HOMES, HOMES.c.id == CONTAINERS.c.namespace_id)
        .join(CONTAINER_IMAGES, CONTAINER_IMAGES.c.id == CONTAINERS.c.image_id)
        .outerjoin(CREATORS, CREATORS.c.id == CONTAINERS.c.created_by)
    )


async def find(
    transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False
) -> Container | None:
    """The container of this name, if the caller reaches it; `lock` holds its row until the
    transaction ends.
    """
    query = _containers().where(HOMES.c.name == namespace, CONTAINERS.c.name == name)
    if lock:
        query = query.with_for_update(of=CONTAINERS)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _container(row)


async def get(
    transaction: ReadTransaction, container_id: int, *, lock: bool = False, skip_locked: bool = False
) -> Container | None:
    """The container with this id."""
    query = _containers().where(CONTAINERS.c.id == container_id)
    if lock:
        query = query.with_for_update(of=CONTAINERS, skip_locked=skip_locked)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _container(row)


async def get_many(transaction: ReadTransaction, ids: Sequence[int]) -> list[Container]:
    """The containers with these ids, in the order of their ids; missing ones are left out."""
    query = _containers().where(CONTAINERS.c.id.in_(ids)).order_by(CONTAINERS.c.id)
    return [_container(row) for row in (await transaction.connection.execute(query)).all()]


async def list_containers(
    transaction: ReadTransaction,
    page: PageRequest,
    *,
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
) -> tuple[Sequence[Container], str]:
    """One page of the containers of one namespace or of those among `visible`, and the token of the
    next.
    """
    query = _narrowed(_containers(), namespace_id, selector, visible).where(
        compile_filter(page.filter, _FILTERS)
    )
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=CONTAINERS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, token = finish_page(rows, order, page)
    return [_container(row) for row in rows], token


async def stream_containers(
    transaction: ReadTransaction,
    *,
    namespace_id: int | None = None,
    name: str = "",
    status: str = "",
    selector: LabelSelector | None = None,
    visible: Collection[int] | None = None,
) -> AsyncIterator[Container]:
    """Every container that matches, by namespace and name."""
    query = _narrowed(_containers(), namespace_id, selector, visible).order_by(
        CONTAINERS.c.namespace_id, CONTAINERS.c.name
    )
    if name:
        query = query.where(CONTAINERS.c.name == name)
    if status:
        query = query.where(CONTAINERS.c.status == status)
    async for row in await transaction.connection.stream(query):
        yield _container(row)


def _narrowed(
    query: Select[Any],
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
) -> Select[Any]:
    if namespace_id is not None:
        query = query.where(CONTAINERS.c.namespace_id == namespace_id)
    elif visible is not None:
        query = query.where(CONTAINERS.c.namespace_id.in_(visible))
    if selector is not None:
        query = query.where(label_selector_condition(CONTAINERS.c.labels, selector))
    return query


async def insert_container(
    transaction: Transaction, container: Container, image_id: int, quota: tuple[int, int]
) -> Container:
    """Adds a container with its parts and answers it as stored; `quota` is millicores and bytes counted."""
    statement = (
        insert(CONTAINERS)
        .values(
            **_columns(container),
            name=container.name,
            namespace_id=container.namespace_id,
            image_id=image_id,
            kubernetes_name=container.kubernetes_name,
            imported=container.imported,
            quota_cpu_millicores=quota[0],
            quota_memory_bytes=quota[1],
            created_by=transaction.actor.user_id,
            updated_by=transaction.actor.user_id,
        )
        .returning(CONTAINERS.c.id)
    )
    container_id = (await transaction.connection.execute(statement)).scalar_one()
    await _insert_parts(transaction, container_id, container)
    return await _whole(transaction, container_id)


async def update_container(
    transaction: Transaction,
    stored: Container,
    wanted: Container,
    *,
    image_id: int | None = None,
    quota: tuple[int, int] | None = None,
    generation: int | None = None,
    deleting: bool = False,
) -> Container:
    """Writes what is wanted of a container that the transaction has locked, and answers it as stored.

    Parts are rewritten only where they differ. `image_id` and `quota` only where they change.
    """
    values = _columns(wanted) | {
        "status": wanted.observed.status,
        "reason": wanted.observed.reason or None,
        "message": wanted.observed.message or None,
        "resource_version": CONTAINERS.c.resource_version + 1,
        "updated_at": func.now(),
        "updated_by": transaction.actor.user_id,
    }
    if image_id is not None:
        values["image_id"] = image_id
    if quota is not None:
        values["quota_cpu_millicores"], values["quota_memory_bytes"] = quota
    if generation is not None:
        values["generation"] = generation
    if deleting:
        values["deletion_requested_at"] = transaction.now
    await transaction.connection.execute(
        update(CONTAINERS).where(CONTAINERS.c.id == stored.id).values(values)
    )
    if (stored.env, stored.ports, stored.volume_mounts) != (wanted.env, wanted.ports, wanted.volume_mounts):
        for table in (ENVIRONMENT_VARIABLES, PORT_MAPPINGS, CONTAINER_VOLUMES):
            await transaction.connection.execute(delete(table).where(table.c.container_id == stored.id))
        await _insert_parts(transaction, stored.id, wanted)
    return await _whole(transaction, stored.id)


async def apply_observed(
    transaction: Transaction,
    container: Container,
    observed: Observed,
    *,
    observed_generation: int | None = None,
) -> Container:
    """Writes what the cluster showed; what is wanted, the etag and `updated_by` stay as they are."""
    values: dict[str, Any] = {
        "status": observed.status,
        "phase": observed.phase or None,
        "reason": observed.reason[:100] or None,
        "message": observed.message or None,
        "ready_replicas": observed.ready_replicas,
        "deployment_name": observed.deployment_name or None,
        "replica_set_name": observed.replica_set_name or None,
        "pod_name": observed.pod_name or None,
        "pod_ip": observed.pod_ip or None,
        "host_ip": observed.host_ip or None,
        "restart_count": observed.restart_count,
        "started_at": observed.started_at,
        "finished_at": observed.finished_at,
        "conditions": msgspec.to_builtins(observed.conditions),
        "stale_since": observed.stale_since,
        "updated_at": func.now(),
    }
    if observed_generation is not None:
        values["observed_generation"] = func.greatest(CONTAINERS.c.observed_generation, observed_generation)
    await transaction.connection.execute(
        update(CONTAINERS).where(CONTAINERS.c.id == container.id).values(values)
    )
    return await _whole(transaction, container.id)


async def remove(transaction: Transaction, container_id: int) -> None:
    """Removes a container and all that belongs to it."""
    await transaction.connection.execute(delete(CONTAINERS).where(CONTAINERS.c.id == container_id))


async def usage_of_quota(
    transaction: ReadTransaction, namespace_id: int, *, leave_out: int | None = None
) -> tuple[int, int, int]:
    """Containers, millicores and bytes that count against a namespace's quota, less one container's."""
    query = select(
        func.count(),
        func.coalesce(func.sum(CONTAINERS.c.quota_cpu_millicores), 0),
        func.coalesce(func.sum(CONTAINERS.c.quota_memory_bytes), 0),
    ).where(CONTAINERS.c.namespace_id == namespace_id, CONTAINERS.c.deletion_requested_at.is_(None))
    if leave_out is not None:
        query = query.where(CONTAINERS.c.id != leave_out)
    count, cpu, memory = (await transaction.connection.execute(query)).one()
    return int(count), int(cpu), int(memory)


async def taken_services(
    transaction: ReadTransaction, namespace_id: int, services: Collection[str], *, leave_out: int | None
) -> Mapping[str, str]:
    """Which of these service names other containers of the namespace have.

    Service name → container name.
    """
    query = (
        select(PORT_MAPPINGS.c.service_name, CONTAINERS.c.name)
        .join(CONTAINERS, CONTAINERS.c.id == PORT_MAPPINGS.c.container_id)
        .where(
            PORT_MAPPINGS.c.namespace_id == namespace_id,
            PORT_MAPPINGS.c.service_name.in_(services),
            *([] if leave_out is None else [PORT_MAPPINGS.c.container_id != leave_out]),
        )
    )
    return {row.service_name: row.name for row in await transaction.connection.execute(query)}


async def missing_sources(
    transaction: ReadTransaction, namespace_id: int, kind: str, names: Collection[str]
) -> set[str]:
    """Which of these config maps, secrets or volumes the namespace does not have."""
    if not names:
        return set()
    rows = await transaction.connection.execute(
        text(_SOURCES[kind]), {"id": namespace_id, "names": list(names)}
    )
    return set(names) - {row.name for row in rows}


async def _whole(transaction: ReadTransaction, container_id: int) -> Container:
    found = await get(transaction, container_id)
    assert found is not None, "a row that was just written can be read back"
    return found


def _columns(container: Container) -> dict[str, Any]:
    resources = container.resources
    return {
        "display_name": container.display_name or None,
        "cpu_request": resources.cpu_request or None,
        "cpu_limit": resources.cpu_limit or None,
        "memory_request": resources.memory_request or None,
        "memory_limit": resources.memory_limit or None,
        "labels": container.labels,
        "annotations": container.annotations,
        "spec": _document(container),
        "desired_state": container.desired_state,
        "replicas": container.replicas,
        "drift_policy": container.drift_policy,
        "hold_rollout": container.hold_rollout,
        "restart_requested_at": container.spec.restarted_at,
    }


def _document(container: Container) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(container.spec)
    document["image"] = container.image
    if container.volume_mounts:
        document["volume_mounts"] = msgspec.to_builtins(container.volume_mounts)
    return document


async def _insert_parts(transaction: Transaction, container_id: int, container: Container) -> None:
    owner = {"container_id": container_id, "namespace_id": container.namespace_id}
    if container.env:
        await transaction.connection.execute(
            insert(ENVIRONMENT_VARIABLES), [owner | _env_row(i, e) for i, e in enumerate(container.env)]
        )
    if container.ports:
        await transaction.connection.execute(
            insert(PORT_MAPPINGS), [owner | _port_row(port) for port in container.ports]
        )
    empty_dirs = {item.name for item in container.spec.empty_dirs}
    for mount in container.volume_mounts:
        if mount.volume not in empty_dirs:
            await transaction.connection.execute(
                text(
                    "INSERT INTO container_volumes "
                    "(container_id, volume_id, namespace_id, mount_path, read_only, sub_path) "
                    "SELECT :container_id, id, namespace_id, :mount_path, :read_only, :sub_path "
                    "FROM volumes WHERE namespace_id = :namespace_id AND name = :volume"
                ),
                owner
                | {
                    "volume": mount.volume,
                    "mount_path": mount.mount_path,
                    "read_only": mount.read_only,
                    "sub_path": mount.sub_path or None,
                },
            )


def _env_row(position: int, variable: EnvVar) -> dict[str, Any]:
    return {
        "position": position,
        "name": variable.name,
        "value": variable.value if variable.value_from == "literal" else None,
        "value_from": variable.value_from,
        "source_name": variable.source_name or None,
        "source_key": variable.source_key or None,
        "optional": variable.optional,
    }


def _port_row(port: Port) -> dict[str, Any]:
    return {
        "name": port.name or None,
        "container_port": port.container_port,
        "host_port": port.host_port,
        "protocol": port.protocol,
        "app_protocol": port.app_protocol or None,
        "service_type": port.service_type,
        "service_name": port.service_name or None,
        "service_port": port.service_port,
        "node_port": port.node_port,
    }


def _present(document: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON without its missing values, which the model has defaults for."""
    return {name: value for name, value in document.items() if value is not None}


def _container(row: Row[Any]) -> Container:
    spec = dict(row.spec)
    image = spec.pop("image")
    mounts = msgspec.convert(spec.pop("volume_mounts", ()), tuple[VolumeMount, ...])
    return Container(
        id=ContainerId(row.id),
        uid=str(row.uid),
        name=row.name,
        namespace_id=NamespaceId(row.namespace_id),
        namespace=row.namespace_name,
        cluster_name=row.cluster_name,
        kubernetes_namespace=row.kubernetes_namespace,
        kubernetes_name=row.kubernetes_name,
        image=image,
        display_name=row.display_name or "",
        env=tuple(msgspec.convert(_present(item), EnvVar) for item in row.env or ()),
        ports=tuple(msgspec.convert(_present(item), Port) for item in row.ports or ()),
        volume_mounts=mounts,
        resources=Resources(
            row.cpu_request or "", row.cpu_limit or "", row.memory_request or "", row.memory_limit or ""
        ),
        replicas=row.replicas,
        labels=row.labels,
        annotations=row.annotations,
        spec=msgspec.convert(spec, ContainerSpec),
        drift_policy=row.drift_policy,
        desired_state=row.desired_state,
        hold_rollout=row.hold_rollout,
        imported=row.imported,
        observed=Observed(
            status=row.status,
            phase=row.phase or "",
            reason=row.reason or "",
            message=row.message or "",
            ready_replicas=row.ready_replicas,
            deployment_name=row.deployment_name or "",
            replica_set_name=row.replica_set_name or "",
            pod_name=row.pod_name or "",
            pod_ip=row.pod_ip or "",
            host_ip=row.host_ip or "",
            restart_count=row.restart_count,
            started_at=row.started_at,
            finished_at=row.finished_at,
            conditions=msgspec.convert(row.conditions, tuple[Condition, ...]),
            stale_since=row.stale_since,
        ),
        generation=row.generation,
        observed_generation=row.observed_generation,
        resource_version=row.resource_version,
        deletion_requested_at=row.deletion_requested_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.creator or "",
    )
