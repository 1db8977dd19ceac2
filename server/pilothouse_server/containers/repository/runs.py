"""SQL about the runs of a container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from pilothouse_server.containers.job_status import ContainerRun, newest_run, run_name, with_end
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.tables import CONTAINER_RUNS
from pilothouse_server.containers.workloads import has_schedule
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
    if not page.page_token and _is_unseen(container, found):
        return [newest_run(container), *found], next_page
    return found, next_page


async def find_run_name(transaction: ReadTransaction, container: Container, number: int) -> str | None:
    """Returns the name of the Job of a run; None without one of that number."""
    if not has_schedule(container):
        return run_name(container, number) if number <= container.spec.run else None
    query = select(CONTAINER_RUNS.c.name).where(
        CONTAINER_RUNS.c.container_id == container.id, CONTAINER_RUNS.c.number == number
    )
    found: str | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


def _is_unseen(container: Container, found: Sequence[ContainerRun]) -> bool:
    """Returns whether the newest run that was requested is none of those that the cluster has shown."""
    if has_schedule(container):
        requested = run_name(container, container.spec.run)
        return (
            container.spec.run > 1 and container.reconciling and all(run.name != requested for run in found)
        )
    return not found or found[0].number < container.spec.run


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
