"""SQL about the revisions of a container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import orjson
from sqlalchemy import func, select, text

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.revisions import DesiredFields, Revision, desired_fields, revisions_kept
from pilothouse_server.revisions.tables import REVISIONS
from pilothouse_server.store.audit_records import canonical_time
from pilothouse_server.store.draft import Draft
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

_READ = text("SELECT read_revision(:user_id, :resource_type, :resource_id, :number) AS document")


def revision_row(
    wanted: Container,
    number: int,
    operation_id: UUID,
    stored: Container | None = None,
    origin: int | None = None,
) -> dict[str, Any]:
    """Returns the newest revision of a container, as the SQL function `write_revision` takes it.

    `stored`: the container before. If it has no revision, its state becomes one, too.
    """
    row = {
        "number": number,
        "document": _document(wanted),
        "origin": origin,
        "operation_id": str(operation_id),
        "kept": revisions_kept(wanted),
    }
    if stored is not None and stored.revision_number == 0:
        changed = stored.updated_at or stored.created_at
        row |= {"before": _document(stored), "before_at": changed and canonical_time(changed)}
    return row


def _document(container: Container) -> orjson.Fragment:
    return orjson.Fragment(msgspec.json.encode(desired_fields(container)))


async def list_revisions(
    transaction: ReadTransaction, container: Container, page: PageRequest, number: int
) -> tuple[Sequence[Revision], NextPage]:
    """Returns one page of a container's revisions, newest first, and where the next page begins.

    `number` restricts the page to one revision; 0: all.
    """
    before = func.lag(REVISIONS.c.document).over(order_by=REVISIONS.c.number).label("before")
    every = (
        select(REVISIONS, before, USERS.c.username)
        .select_from(REVISIONS.outerjoin(USERS, USERS.c.id == REVISIONS.c.created_by))
        .where(REVISIONS.c.resource_type == "container", REVISIONS.c.resource_id == container.id)
        .subquery()
    )
    query = select(every).where(every.c.number == number) if number else select(every)
    order = parse_order_by(
        "", {"number": OrderField(every.c.number)}, default="number desc", unique=every.c.id
    )
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_revision(row) for row in rows], next_page


async def read_revision(
    target: Draft | Transaction, container: Container, number: int
) -> DesiredFields | None:
    """Returns the state of one revision; None where it is not kept."""
    parameters = {"resource_type": "container", "resource_id": container.id, "number": number}
    (row,) = await target.read(_READ, parameters)
    document = row["document"]
    return None if document is None else msgspec.json.decode(document, type=DesiredFields)


def _revision(row: Any) -> Revision:
    return Revision(
        number=row.number,
        desired=msgspec.convert(row.document, DesiredFields),
        before=None if row.before is None else msgspec.convert(row.before, DesiredFields),
        created_at=row.created_at,
        origin=row.origin,
        operation_id=str(row.operation_id) if row.operation_id else "",
        created_by=row.username or "",
    )
