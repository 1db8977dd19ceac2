"""A container that is new, with all that belongs to it, in one statement.

Its row, image, environment, ports, mounts, the first line of its history and the work for the reconciler: each
statement is a round trip, and there would be eight. Foreign keys are checked at the statement's end, so what refers to
the row may stand beside it. What the database gives (id, uid, times) comes back; all else is what was given.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import orjson
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.repository.child_rows import columns_of, env_row, port_row
from pilothouse_server.containers.repository.mounts import mount_rows
from pilothouse_server.errors import already_exists
from pilothouse_server.store.errors import violated_constraint
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.image_reference import ImageReference
from pilothouse_server.values.resources import ContainerId

_INSERT = text("""
WITH made AS (
    INSERT INTO containers (
        display_name, cpu_request, cpu_limit, memory_request, memory_limit, labels, annotations, spec,
        desired_state, replicas, drift_policy, hold_rollout, restart_requested_at, name, namespace_id,
        kubernetes_name, imported, quota_cpu_millicores, quota_memory_bytes, created_by, updated_by, uid, image_id)
    VALUES (
        :display_name, :cpu_request, :cpu_limit, :memory_request, :memory_limit, :labels, :annotations, :spec,
        :desired_state, :replicas, :drift_policy, :hold_rollout, :restart_requested_at, :name, :namespace_id,
        :kubernetes_name, :imported, :quota_cpu_millicores, :quota_memory_bytes, :created_by, :updated_by,
        COALESCE(CAST(:uid AS uuid), gen_random_uuid()),
        register_image(:image_repository, :image_name, :image_tag, :image_digest))
    RETURNING id, uid, created_at, updated_at),
env AS (
    INSERT INTO environment_variables
        (container_id, namespace_id, position, name, value, value_from, source_name, source_key, optional)
    SELECT made.id, :namespace_id, r.position, r.name, r.value, r.value_from, r.source_name, r.source_key, r.optional
    FROM made, jsonb_to_recordset(CAST(CAST(:env AS text) AS jsonb)) AS r(
        position int, name text, value text, value_from text, source_name text, source_key text, optional boolean)),
ports AS (
    INSERT INTO port_mappings (container_id, namespace_id, name, container_port, host_port, protocol, app_protocol,
        service_type, service_name, service_port, node_port)
    SELECT made.id, :namespace_id, r.name, r.container_port, r.host_port, r.protocol, r.app_protocol, r.service_type,
        r.service_name, r.service_port, r.node_port
    FROM made, ROWS FROM (jsonb_to_recordset(CAST(CAST(:ports AS text) AS jsonb)) AS (
        name text, container_port int, host_port int, protocol text, app_protocol text, service_type text,
        service_name text, service_port int, node_port int)) WITH ORDINALITY AS r
    ORDER BY r.ordinality),
mounts AS (
    INSERT INTO container_volumes (container_id, volume_id, namespace_id, mount_path, read_only, sub_path)
    SELECT made.id, v.id, :namespace_id, r.mount_path, r.read_only, r.sub_path
    FROM made, jsonb_to_recordset(CAST(CAST(:mounts AS text) AS jsonb)) AS r(
        volume text, mount_path text, read_only boolean, sub_path text)
    JOIN volumes AS v ON v.namespace_id = :namespace_id AND v.name = r.volume
    ON CONFLICT (container_id, volume_id, mount_path) DO NOTHING),
operation AS (
    INSERT INTO operations (operation_id, user_id, method, resource_type, resource_id, namespace_id, request_id)
    SELECT :operation_id, :created_by, :method, 'container', made.id, :namespace_id, :request_id FROM made
    ON CONFLICT (operation_id) DO NOTHING),
history AS (
    INSERT INTO container_status_history
        (container_id, namespace_id, current_status, triggered_by, user_id, operation_id)
    SELECT made.id, :namespace_id, 'pending', 'user', :created_by, :operation_id FROM made),
work AS (
    INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, namespace_id, due_at)
    SELECT 'container', made.id, :cluster_name, :namespace_id, clock_timestamp() FROM made)
SELECT id, uid, created_at, updated_at FROM made
""").bindparams(*(bindparam(name, type_=JSONB) for name in ("labels", "annotations", "spec")))


async def insert_container(
    transaction: Transaction, container: Container, quota: tuple[int, int], uid: str = ""
) -> Container:
    """Adds a container and leaves it to the reconciler; answers it as stored. `quota`: millicores and bytes counted.

    `uid`: that of an orphan on the cluster, which keeps it; empty: a new one.

    Raises:
        AlreadyExists: the name; the transaction can then only be rolled back.
    """
    image = ImageReference.parse(container.image)
    parameters: dict[str, Any] = {
        **columns_of(container),
        "name": container.name,
        "namespace_id": container.namespace_id,
        "uid": uid or None,
        "cluster_name": container.cluster_name,
        "kubernetes_name": container.kubernetes_name,
        "imported": container.imported,
        "quota_cpu_millicores": quota[0],
        "quota_memory_bytes": quota[1],
        "created_by": transaction.actor.user_id,
        "updated_by": transaction.actor.user_id,
        "operation_id": transaction.operation_id,
        "method": transaction.method,
        "request_id": transaction.request_id,
        "image_repository": image.repository or None,
        "image_name": image.name,
        "image_tag": image.tag or None,
        "image_digest": image.digest or None,
        "env": _json([env_row(position, item) for position, item in enumerate(container.env)]),
        "ports": _json([port_row(port) for port in container.ports]),
        "mounts": _json(mount_rows(container)),
    }
    try:
        row = (await transaction.connection.execute(_INSERT, parameters)).one()
    except asyncpg.UniqueViolationError as error:
        if violated_constraint(error) == "uq_containers_name":
            raise already_exists("container", container.name) from None
        raise
    return msgspec.structs.replace(
        container,
        id=ContainerId(row.id),
        uid=str(row.uid),
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=transaction.actor.username,
    )


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows).decode()
