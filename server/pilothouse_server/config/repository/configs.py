"""SQL that reads config maps and secrets, and writes their state on the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, TextClause, delete, func, select, text, update

from pilothouse_server.config.model import Config, Kind
from pilothouse_server.config.repository.rows import TABLES, cached, selected, value, whole
from pilothouse_server.store.filtering import (
    FilterField,
    FilterKind,
    compile_filter,
    filter_fields,
)
from pilothouse_server.store.in_namespaces import Matching, narrowed, read_matching
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    paginate_rows,
    parse_order_by,
    read_page,
)
from pilothouse_server.store.references import NAMESPACES, USERS, keys_of, reconciling
from pilothouse_server.store.rendered import with_missing
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction
from pilothouse_server.values.cached_message import CachedMessage
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.values.resources import Condition


def _filters(kind: Kind) -> dict[str, FilterField]:
    table = TABLES[kind]
    filters = {
        **filter_fields(
            table,
            "name uid immutable kubernetes_name generation observed_generation create_time update_time delete_time"
            " labels annotations",
        ),
        "namespace": FilterField(NAMESPACES.c.name),
        "created_by": FilterField(USERS.c.username),
        "reconciling": FilterField(reconciling(table), FilterKind.BOOLEAN),
    }
    if kind == "secret":
        filters |= filter_fields(table, "type key_id")
    return filters


_FILTERS: dict[Kind, dict[str, FilterField]] = {kind: _filters(kind) for kind in TABLES}
_ORDERS: dict[Kind, dict[str, OrderField]] = {
    kind: {"name": OrderField(table.c.name), "create_time": OrderField(table.c.created_at)}
    for kind, table in TABLES.items()
}


_CALLS: dict[Kind, TextClause] = {
    kind: text(
        f"SELECT id, namespace_id, creator, message FROM read_{kind}(:user_id, :namespace, :name, :format)"  # noqa: S608 - our own words
    )
    for kind in TABLES
}


async def find_cached(
    store: Store, user_id: int, kind: Kind, namespace: str, name: str, message_format: int
) -> CachedMessage | None:
    """The one of this name without rendering it, if the caller reaches it, in one round trip."""
    named = {"namespace": namespace, "name": name, "format": message_format}
    rows = await store.call(user_id, _CALLS[kind], named)
    return _cached_config(rows[0]) if rows else None


def _cached_config(row: Any) -> CachedMessage:
    return CachedMessage(row.id, row.namespace_id, row.creator, row.message)


async def find(
    transaction: ReadTransaction, kind: Kind, namespace: str, name: str, *, lock: bool = False
) -> Config | None:
    """The one of this name, if the caller reaches it; `lock` holds its row until the transaction ends."""
    table = TABLES[kind]
    query = selected(kind).where(NAMESPACES.c.name == namespace, table.c.name == name)
    if lock:
        query = query.with_for_update(of=table)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else value(kind, row)


async def get(
    transaction: ReadTransaction, kind: Kind, config_id: int, *, lock: bool = False
) -> Config | None:
    """Returns the config with this id."""
    table = TABLES[kind]
    query = selected(kind).where(table.c.id == config_id)
    if lock:
        query = query.with_for_update(of=table)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else value(kind, row)


async def get_many(transaction: ReadTransaction, ids: Sequence[int], kind: Kind) -> list[Config]:
    """Those with these ids, in the order of their ids; missing ones are left out."""
    query = selected(kind).where(TABLES[kind].c.id.in_(ids)).order_by(TABLES[kind].c.id)
    return [value(kind, row) for row in (await transaction.connection.execute(query)).all()]


async def list_page(
    transaction: ReadTransaction,
    kind: Kind,
    page: PageRequest,
    *,
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
    message_format: int,
) -> tuple[Sequence[CachedMessage | Config], NextPage]:
    """Returns one page of those of one namespace or of those among `visible`, and where the next page begins.

    They are not rendered; those are whole whose message is not kept in this format.
    """
    keys = keys_of(TABLES[kind], compile_filter(page.filter, _FILTERS[kind]))
    keys = narrowed(keys, TABLES[kind], namespace_id, selector, visible)
    order = parse_order_by(page.order_by, _ORDERS[kind], default="name", unique=TABLES[kind].c.id)

    async def read(part: PageRequest) -> Sequence[Row]:
        query = paginate_rows(cached(kind, message_format), keys, TABLES[kind].c.id, order, part)
        return (await transaction.connection.execute(query)).all()

    rows, next_page = await read_page(read, order, page, lambda row: len(row.message or b""))
    return await _ready(transaction, rows, kind), next_page


async def _ready(
    transaction: ReadTransaction, rows: Sequence[Any], kind: Kind
) -> list[CachedMessage | Config]:
    return await with_missing(rows, _cached_config, lambda ids: get_many(transaction, ids, kind))


async def stream(
    transaction: ReadTransaction,
    kind: Kind,
    *,
    namespace_id: int | None = None,
    name: str = "",
    selector: LabelSelector | None = None,
    visible: Collection[int] | None = None,
) -> AsyncIterator[Config]:
    """Every one that matches, by namespace and name."""
    async for rows in _matching(
        transaction, kind, selected(kind), Matching(namespace_id, selector, visible, name)
    ):
        for row in rows:
            yield value(kind, row)


async def stream_ready(
    transaction: ReadTransaction,
    kind: Kind,
    *,
    namespace_id: int | None,
    name: str,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
    message_format: int,
) -> AsyncIterator[CachedMessage | Config]:
    """The same without rendering; those are whole whose message is not kept in this format."""
    whole = cached(kind, message_format)
    async for rows in _matching(transaction, kind, whole, Matching(namespace_id, selector, visible, name)):
        for each in await _ready(transaction, rows, kind):
            yield each


def _matching(
    transaction: ReadTransaction, kind: Kind, whole: Select[Any], wanted: Matching
) -> AsyncIterator[Sequence[Row]]:
    # One may hold a mebibyte.
    return read_matching(transaction.connection, whole, TABLES[kind], wanted, most_rows=25)


async def count(transaction: ReadTransaction, kind: Kind, namespace_id: int) -> int:
    """How many of a kind a namespace holds, those being deleted included."""
    table = TABLES[kind]
    query = select(func.count()).select_from(table).where(table.c.namespace_id == namespace_id)
    return int((await transaction.connection.execute(query)).scalar_one())


async def write_observed(
    transaction: Transaction,
    kind: Kind,
    config_id: int,
    *,
    conditions: tuple[Condition, ...],
    observed_generation: int,
) -> Config:
    """Writes the cluster's state of one; the desired state and the etag stay unchanged."""
    table = TABLES[kind]
    await transaction.connection.execute(
        update(table)
        .where(table.c.id == config_id)
        .values(
            conditions=msgspec.to_builtins(conditions),
            observed_generation=func.greatest(table.c.observed_generation, observed_generation),
            updated_at=func.now(),
        )
    )
    return await whole(transaction, kind, config_id)


async def remove(transaction: Transaction, kind: Kind, config_id: int) -> None:
    """Removes a row."""
    table = TABLES[kind]
    await transaction.connection.execute(delete(table).where(table.c.id == config_id))
