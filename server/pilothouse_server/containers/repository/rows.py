"""Reads a container as one row: the query, and the conversion to `Container`.

The document `containers.spec` is `ContainerSpec` with the volume mounts, the maps of resources, the annotations of
Services and the image as requested. The document repeats the requested image, because nodes report a digest for the
row of `container_images` that `image_id` references, and that digest must not change the desired state. Environment,
ports and volumes are separate rows and are read as JSON aggregates, so reading a container takes one statement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Select, func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by

from pilothouse_server.containers.model import (
    Container,
    ContainerSpec,
    EnvVar,
    Observed,
    Port,
    Resources,
)
from pilothouse_server.containers.repository.mounts import mounted_volumes, volumes_of
from pilothouse_server.containers.tables import (
    CONTAINERS,
    ENVIRONMENT_VARIABLES,
    PORT_MAPPINGS,
)
from pilothouse_server.kubernetes.ownership import DOMAIN
from pilothouse_server.store.references import IN_NAMESPACE, NAMESPACES, USERS, namespace_ref
from pilothouse_server.store.results import Row
from pilothouse_server.values.programs import ProgramStatus
from pilothouse_server.values.resources import Condition, ContainerId
from pilothouse_server.values.volumes import VolumeMount


def _whole_containers() -> Select[Any]:
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
        *IN_NAMESPACE,
        USERS.c.username.label("creator"),
        env.label("env"),
        ports.label("ports"),
        mounted_volumes().label("mounted_volumes"),
    ).select_from(
        # A deleted namespace has no containers, so the join need not exclude deleted namespaces.
        CONTAINERS.join(NAMESPACES, NAMESPACES.c.id == CONTAINERS.c.namespace_id).outerjoin(
            USERS, USERS.c.id == CONTAINERS.c.created_by
        )
    )


# The query for every container that the transaction's role may read, with its parts.
WHOLE = _whole_containers()


def _present(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row from JSON without its null values, for which the model has defaults."""
    return {name: value for name, value in document.items() if value is not None}


def _port(item: Mapping[str, Any], annotations: Mapping[str, dict[str, str]]) -> Port:
    port = msgspec.convert(_present(item), Port)
    found = annotations.get(port.service_name)
    return msgspec.structs.replace(port, service_annotations=found) if found else port


def _variable(item: Mapping[str, Any]) -> EnvVar:
    present = _present(item)
    if item["value_from"] != "literal" and "value" in present:
        present["divisor"] = present.pop("value")
    return msgspec.convert(present, EnvVar)


def _resources(row: Row, maps: Mapping[str, dict[str, str]]) -> Resources:
    """Returns the resources of a row, each amount in the field that the caller set.

    The columns have every amount of cpu and memory, including those from the maps `requests` and `limits`.
    """
    whole = Resources(
        row.cpu_request or "", row.cpu_limit or "", row.memory_request or "", row.memory_limit or "", **maps
    )
    if not maps:
        return whole
    given = {f"{key}_{kind.removesuffix('s')}" for kind, amounts in maps.items() for key in amounts}
    return msgspec.structs.replace(whole, **dict.fromkeys(given & set(Resources.__struct_fields__), ""))


def _of_pods(row: Row, taken_over: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    """Returns the labels and annotations of the pods from a row that release 0.2.0 has written."""
    if taken_over is None:
        return {"pod_labels": row.labels, "pod_annotations": row.annotations}
    return {
        name: {
            key: text for key, text in taken_over.get(name, {}).items() if not key.startswith(f"{DOMAIN}/")
        }
        for name in ("pod_labels", "pod_annotations")
    }


def container_of(row: Row) -> Container:
    """Returns the container of a row that `WHOLE` selected."""
    spec = dict(row.spec)
    if "pod_labels" not in spec:
        spec |= _of_pods(row, spec.get("taken_over"))
    resources = _resources(row, spec.pop("resources", {}))
    image = spec.pop("image")
    mounts = msgspec.convert(spec.pop("volume_mounts", ()), tuple[VolumeMount, ...])
    annotations: Mapping[str, dict[str, str]] = spec.pop("service_annotations", {})
    return Container(
        id=ContainerId(row.id),
        uid=str(row.uid),
        name=row.name,
        namespace_ref=namespace_ref(row),
        kubernetes_name=row.kubernetes_name,
        image=image,
        display_name=row.display_name or "",
        env=tuple(_variable(item) for item in row.env or ()),
        ports=tuple(_port(item, annotations) for item in row.ports or ()),
        volume_mounts=mounts,
        volumes=volumes_of(row.mounted_volumes),
        resources=resources,
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
            programs=msgspec.convert(row.programs, tuple[ProgramStatus, ...]),
        ),
        generation=row.generation,
        observed_generation=row.observed_generation,
        resource_version=row.resource_version,
        row_version=row.row_version,
        revision_number=row.revision_number,
        deletion_requested_at=row.deletion_requested_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.creator or "",
    )
