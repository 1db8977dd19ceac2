"""SQL about the history of a container's status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, text

from pilothouse_server.containers.model import Container, Status, StatusChange
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
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.actors import TriggeredBy

# One statement, because the foreign key to `operations` is checked at its end, and the row of the
# operation is otherwise written only when the transaction is about to commit.
_ADD = text(
    "WITH operation AS ("
    "  INSERT INTO operations (operation_id, user_id, method, resource_type, resource_id, namespace_id, "
    "request_id)"
    "  SELECT :operation_id, :user_id, :method, 'container', :container_id, :namespace_id, :request_id"
    "  WHERE CAST(:triggered_by AS text) = 'user' ON CONFLICT (operation_id) DO NOTHING) "
    "INSERT INTO container_status_history (container_id, namespace_id, previous_status, current_status, reason, "
    "message, triggered_by, user_id, operation_id) VALUES (:container_id, :namespace_id, :previous_status, "
    ":current_status, :reason, :message, :triggered_by, :user_id, "
    "CASE WHEN CAST(:triggered_by AS text) = 'user' THEN CAST(:operation_id AS uuid) END)"
)
_ORDERS = {"change_time": OrderField(STATUS_HISTORY.c.changed_at)}


async def add_history(
    transaction: Transaction,
    container: Container,
    previous: Status | None,
    triggered_by: TriggeredBy,
) -> None:
    """Notes that the container's status became what it is."""
    observed = container.observed
    await transaction.connection.execute(
        _ADD,
        {
            "operation_id": transaction.operation_id,
            "user_id": transaction.actor.user_id,
            "method": transaction.method,
            "request_id": transaction.request_id,
            "container_id": container.id,
            "namespace_id": container.namespace_id,
            "previous_status": previous,
            "current_status": observed.status,
            "reason": observed.reason[:100] or None,
            "message": observed.message or None,
            "triggered_by": triggered_by,
        },
    )


async def list_history(
    transaction: ReadTransaction, container_id: int, page: PageRequest
) -> tuple[Sequence[StatusChange], NextPage]:
    """One page of a container's history, newest first, and where they go on."""
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
