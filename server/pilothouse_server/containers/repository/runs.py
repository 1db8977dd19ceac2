"""SQL about the runs of a container."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, any_, bindparam, select

from pilothouse_server.containers.job_status import ContainerRun, newest_run, run_name, with_end
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.tables import CONTAINER_RUNS, CONTAINERS
from pilothouse_server.containers.workloads import has_schedule, lists_runs
from pilothouse_server.store.in_namespaces import Matching, read_matching
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.references import NAMESPACES
from pilothouse_server.store.unit_of_work import Event, Kind, ReadTransaction
from pilothouse_server.values.labels import LabelSelector

_RUNS = (
    select(CONTAINER_RUNS)
    .where(CONTAINER_RUNS.c.container_id == any_(bindparam("ids", type_=ARRAY(BigInteger()))))
    .order_by(CONTAINER_RUNS.c.container_id, CONTAINER_RUNS.c.number)
)
_OWNERS = select(CONTAINERS.c.id, CONTAINERS.c.name, NAMESPACES.c.name.label("namespace_name")).join(
    NAMESPACES, NAMESPACES.c.id == CONTAINERS.c.namespace_id
)
_ORDERS = {"number": OrderField(CONTAINER_RUNS.c.number)}


async def list_runs(
    transaction: ReadTransaction, container: Container, page: PageRequest
) -> tuple[Sequence[ContainerRun], NextPage]:
    """Returns one page of a container's runs, newest first, and where the next page begins.

    A requested run that was not observed yet is pending.
    """
    query = select(CONTAINER_RUNS).where(CONTAINER_RUNS.c.container_id == container.id)
    order = parse_order_by("", _ORDERS, default="number desc", unique=CONTAINER_RUNS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    found = [with_end(container, _run(row, container.name, container.namespace)) for row in rows]
    if not page.page_token and _is_unseen(container, found):
        return [newest_run(container), *found], next_page
    return found, next_page


async def find_run_name(transaction: ReadTransaction, container: Container, number: int) -> str | None:
    """Returns the name of the Job of a run; None if there is no run of that number."""
    if not has_schedule(container):
        return run_name(container, number) if number <= container.spec.run else None
    query = select(CONTAINER_RUNS.c.name).where(
        CONTAINER_RUNS.c.container_id == container.id, CONTAINER_RUNS.c.number == number
    )
    found: str | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


def _is_unseen(container: Container, found: Sequence[ContainerRun]) -> bool:
    """Returns whether the newest requested run was not observed yet."""
    if has_schedule(container):
        requested = run_name(container, container.spec.run)
        return (
            container.spec.run > 1 and container.reconciling and all(run.name != requested for run in found)
        )
    return not found or found[0].number < container.spec.run


async def runs_by_id(
    transaction: ReadTransaction, containers: Iterable[Container]
) -> dict[int, tuple[Container, ContainerRun]]:
    """Returns the runs of containers, each with its container, by the ids of the runs' rows."""
    by_id = {int(each.id): each for each in containers if lists_runs(each)}
    if not by_id:
        return {}
    rows = await transaction.connection.execute(_RUNS, {"ids": list(by_id)})
    owned = ((row, by_id[row.container_id]) for row in rows)
    return {row.id: (owner, _run(row, owner.name, owner.namespace)) for row, owner in owned}


def run_event(
    container: Container, run: ContainerRun, run_id: int, kind: Kind, before: ContainerRun | None = None
) -> Event:
    """Returns the event of a change of a run, under the name of its container."""
    return Event(
        resource_type="run",
        resource_id=run_id,
        namespace_id=container.namespace_id,
        name=container.name,
        kind=kind,
        entity=run,
        labels=container.labels,
        status=run.status,
        labels_before=None if before is None else container.labels,
        status_before=None if before is None else before.status,
    )


async def stream_runs(
    transaction: ReadTransaction,
    *,
    namespace_id: int | None,
    name: str,
    status: str,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
) -> AsyncIterator[ContainerRun]:
    """Yields runs, by their containers and numbers. `name` and `selector` apply to the containers."""
    wanted = Matching(namespace_id, selector, visible, name)
    async for rows in read_matching(transaction.connection, _OWNERS, CONTAINERS, wanted):
        owners = {row.id: row for row in rows}
        for run in await transaction.connection.execute(_RUNS, {"ids": list(owners)}):
            owner = owners[run.container_id]
            if status in ("", run.status):
                yield _run(run, owner.name, owner.namespace_name)


def _run(row: Any, container: str, namespace: str) -> ContainerRun:
    return ContainerRun(
        name=row.name,
        number=row.number,
        status=row.status,
        reason=row.reason or "",
        message=row.message or "",
        exit_code=row.exit_code,
        start_time=row.start_time,
        end_time=row.end_time,
        container=container,
        namespace=namespace,
    )
