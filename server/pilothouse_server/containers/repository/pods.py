"""SQL about the pods of a container, as they were last observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from pilothouse_server.containers.model import Pod
from pilothouse_server.containers.tables import CONTAINER_PODS
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.program_observation import ProgramObservation
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.unit_of_work import ReadTransaction

_ROWS = CONTAINER_PODS.c
# Programs are left out because they are long, and each followed log runs this query every second.
_CHOICE = select(
    _ROWS.pod_name, _ROWS.uid, _ROWS.phase, _ROWS.ready, _ROWS.deleting, _ROWS.started_at, _ROWS.revision
)
_ORDERS = {"name": OrderField(_ROWS.pod_name)}


async def list_pods(transaction: ReadTransaction, container_id: int) -> Sequence[Pod]:
    """Returns all pods of a container by name, for calls that choose a pod for a program or a log."""
    query = _CHOICE.where(_ROWS.container_id == container_id).order_by(_ROWS.pod_name)
    return [
        Pod(
            row.pod_name,
            row.uid,
            row.phase or "",
            row.ready,
            row.deleting,
            row.started_at,
            row.revision or "",
        )
        for row in await transaction.connection.execute(query)
    ]


async def list_observed_pods(
    transaction: ReadTransaction, container_id: int, page: PageRequest
) -> tuple[Sequence[PodObservation], NextPage]:
    """Returns one page of a container's pods by name, and where the next page begins."""
    query = select(CONTAINER_PODS).where(_ROWS.container_id == container_id)
    order = parse_order_by("", _ORDERS, default="name", unique=_ROWS.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_observed(row) for row in rows], next_page


def _observed(row: Any) -> PodObservation:
    return PodObservation(
        name=row.pod_name,
        uid=row.uid,
        phase=row.phase or "",
        reason=row.reason or "",
        message=row.message or "",
        ready=row.ready,
        pod_ip=row.pod_ip or "",
        host_ip=row.host_ip or "",
        node_name=row.node_name or "",
        restart_count=row.restart_count,
        image=row.image or "",
        image_id=row.image_id or "",
        started_at=row.started_at,
        finished_at=row.finished_at,
        deleting=row.deleting,
        revision=row.revision or "",
        created_at=row.created_at,
        programs=msgspec.convert(row.programs or (), tuple[ProgramObservation, ...]),
    )
