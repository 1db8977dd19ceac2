"""SQL about the runs of a container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from pilothouse_server.containers.job_status import ContainerRun, newest_run, with_end
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.tables import CONTAINER_RUNS
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.unit_of_work import ReadTransaction

_ORDERS = {"number": OrderField(CONTAINER_RUNS.c.number)}


async def list_runs(
    transaction: ReadTransaction, container: Container, page: PageRequest
) -> tuple[Sequence[ContainerRun], NextPage]:
    """Returns one page of a container's runs, newest first, and where the next page begins.

    A run that the cluster has not shown yet is pending.
    """
    query = select(CONTAINER_RUNS).where(CONTAINER_RUNS.c.container_id == container.id)
    order = parse_order_by("", _ORDERS, default="number desc", unique=CONTAINER_RUNS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    found = [with_end(container, _run(row)) for row in rows]
    is_first = not page.page_token
    if is_first and (not found or found[0].number < container.spec.run):
        return [newest_run(container), *found], next_page
    return found, next_page


def _run(row: Any) -> ContainerRun:
    return ContainerRun(
        name=row.name,
        number=row.number,
        status=row.status,
        reason=row.reason or "",
        message=row.message or "",
        exit_code=row.exit_code,
        start_time=row.start_time,
        end_time=row.end_time,
    )
