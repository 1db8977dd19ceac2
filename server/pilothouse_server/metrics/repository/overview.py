"""Reads the views of usage: a container with related values, and the contents of namespaces."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from pilothouse_server.metrics.model import ContainerDetails, NamespaceSummary
from pilothouse_server.metrics.tables import CONTAINER_DETAILS, SUMMARIES
from pilothouse_server.store.paging import (
    NextPage,
    OrderColumn,
    OrderSpec,
    PageRequest,
    finish_page,
    paginate,
)
from pilothouse_server.store.unit_of_work import ReadTransaction

_DETAILS = CONTAINER_DETAILS.c
_BY_NAME = OrderSpec(
    (
        OrderColumn("namespace_name", SUMMARIES.c.namespace_name),
        OrderColumn("", SUMMARIES.c.namespace_id),
    )
)


async def find_details(transaction: ReadTransaction, namespace_id: int, name: str) -> ContainerDetails | None:
    """Returns the container of this name from the view `container_details`, if the caller may see it."""
    query = select(CONTAINER_DETAILS).where(_DETAILS.namespace_id == namespace_id, _DETAILS.name == name)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _details(row)


async def list_summaries(
    transaction: ReadTransaction,
    page: PageRequest,
    *,
    namespace_id: int | None,
    visible: frozenset[int] | None,
) -> tuple[list[NamespaceSummary], NextPage]:
    """Returns one page of the contents of visible namespaces, by name, and where the next page begins."""
    query = select(SUMMARIES)
    if namespace_id is not None:
        query = query.where(SUMMARIES.c.namespace_id == namespace_id)
    if visible is not None:
        query = query.where(SUMMARIES.c.namespace_id.in_(visible))
    rows = (await transaction.connection.execute(paginate(query, _BY_NAME, page))).all()
    rows, next_page = finish_page(rows, _BY_NAME, page)
    return [
        NamespaceSummary(
            row.namespace_name,
            row.total_containers,
            row.running_containers,
            row.stopped_containers,
            row.failed_containers,
            int(row.total_size_bytes),
        )
        for row in rows
    ], next_page


def _details(row: Any) -> ContainerDetails:
    return ContainerDetails(
        id=row.id,
        namespace_id=row.namespace_id,
        name=row.name,
        display_name=row.display_name or "",
        status=row.status,
        phase=row.phase or "",
        reason=row.reason or "",
        message=row.message or "",
        kubernetes_name=row.kubernetes_name,
        pod_name=row.pod_name or "",
        pod_ip=row.pod_ip or "",
        host_ip=row.host_ip or "",
        restart_count=row.restart_count,
        cpu_request=row.cpu_request or "",
        cpu_limit=row.cpu_limit or "",
        memory_request=row.memory_request or "",
        memory_limit=row.memory_limit or "",
        started_at=row.started_at,
        finished_at=row.finished_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        namespace_name=row.namespace_name,
        namespace_k8s_name=row.namespace_k8s_name,
        image_name=row.image_name or "",
        image_tag=row.image_tag or "",
        image_repository=row.image_repository or "",
        created_by_username=row.created_by_username or "",
        created_by_full_name=row.created_by_full_name or "",
        # The cluster reports the start by its own clock, which may be ahead.
        uptime_seconds=None if row.uptime_seconds is None else max(0.0, float(row.uptime_seconds)),
        cpu_usage_percent=_number(row.cpu_usage_percent),
        memory_usage_percent=_number(row.memory_usage_percent),
        last_metric_timestamp=row.last_metric_timestamp,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
