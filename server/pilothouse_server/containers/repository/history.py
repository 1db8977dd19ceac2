"""SQL about the history of a container's status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from pilothouse_server.containers.model import StatusChange
from pilothouse_server.containers.tables import STATUS_HISTORY
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.references import USERS
from pilothouse_server.store.unit_of_work import ReadTransaction

_ORDERS = {"change_time": OrderField(STATUS_HISTORY.c.changed_at)}


async def list_history(
    transaction: ReadTransaction, container_id: int, page: PageRequest
) -> tuple[Sequence[StatusChange], NextPage]:
    """Returns one page of a container's history, newest first, and where the next page begins."""
    query = (
        select(STATUS_HISTORY, USERS.c.username)
        .select_from(STATUS_HISTORY.outerjoin(USERS, USERS.c.id == STATUS_HISTORY.c.user_id))
        .where(STATUS_HISTORY.c.container_id == container_id)
    )
    order = parse_order_by("", _ORDERS, default="change_time desc", unique=STATUS_HISTORY.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_change(row) for row in rows], next_page


def _change(row: Any) -> StatusChange:
    return StatusChange(
        previous=row.previous_status,
        current=row.current_status,
        reason=row.reason or "",
        message=row.message or "",
        changed_at=row.changed_at,
        triggered_by=row.triggered_by,
        username=row.username or "",
        operation_id=str(row.operation_id) if row.operation_id else "",
    )
