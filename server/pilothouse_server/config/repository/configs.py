"""SQL that reads config maps and secrets, and writes their observed state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

import msgspec
from sqlalchemy import delete, func, select, update

from pilothouse_server.config.model import Config, Kind
from pilothouse_server.config.repository.rows import TABLES, selected, value, whole
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.cached_rows import CachedRows, cached_message
from pilothouse_server.store.filtering import (
    FilterField,
    FilterKind,
    filter_fields,
)
from pilothouse_server.store.in_namespaces import Matching, read_matching
from pilothouse_server.store.paging import (
    OrderField,
)
from pilothouse_server.store.references import NAMESPACES, USERS, reconciling
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.cached_message import CachedMessage
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.values.resources import Condition

# A row may have up to 1 MiB.
_MOST_ROWS = 25


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


async def find(
    transaction: ReadTransaction, kind: Kind, namespace: str, name: str, *, lock: bool = False
) -> Config | None:
    """Returns the config of this name, if the caller may see it. `lock` locks its row until the transaction ends."""
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


async def lock_named(
    transaction: Transaction, kind: Kind, namespace_id: int, names: Sequence[str]
) -> list[Config]:
    """Locks the rows with these names until the transaction ends, and returns them ordered by id."""
    table = TABLES[kind]
    query = selected(kind).where(table.c.namespace_id == namespace_id, table.c.name.in_(names))
    query = query.order_by(table.c.id).with_for_update(of=table)
    rows = (await transaction.connection.execute(query)).all()
    return [value(kind, row) async for row in cooperatively(rows)]


async def get_many(transaction: ReadTransaction, ids: Sequence[int], kind: Kind) -> list[Config]:
    """Returns the configs with these ids, ordered by id; missing ones are left out."""
    query = selected(kind).where(TABLES[kind].c.id.in_(ids)).order_by(TABLES[kind].c.id)
    rows = (await transaction.connection.execute(query)).all()
    return [value(kind, row) async for row in cooperatively(rows)]


async def stream(
    transaction: ReadTransaction,
    kind: Kind,
    *,
    namespace_id: int | None = None,
    name: str = "",
    selector: LabelSelector | None = None,
    visible: Collection[int] | None = None,
) -> AsyncIterator[Config]:
    """Yields every config that matches, by namespace and name."""
    wanted = Matching(namespace_id, selector, visible, name)
    async for rows in read_matching(
        transaction.connection, selected(kind), TABLES[kind], wanted, most_rows=_MOST_ROWS
    ):
        for row in rows:
            yield value(kind, row)


def _cached_rows(kind: Kind) -> CachedRows[CachedMessage, Config]:
    async def load(transaction: ReadTransaction, ids: Sequence[int]) -> list[Config]:
        return await get_many(transaction, ids, kind)

    return CachedRows(
        kind,
        TABLES[kind],
        load,
        cached_message,
        filters=_filters(kind),
        orders={
            "name": OrderField(TABLES[kind].c.name),
            "create_time": OrderField(TABLES[kind].c.created_at),
        },
        most_rows=_MOST_ROWS,
    )


CACHED: dict[Kind, CachedRows[CachedMessage, Config]] = {kind: _cached_rows(kind) for kind in TABLES}


async def count(transaction: ReadTransaction, kind: Kind, namespace_id: int) -> int:
    """Returns how many configs of a kind a namespace contains, including those being deleted."""
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
    """Writes the observed state of a config; the desired state and the etag do not change."""
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
    """Deletes a row."""
    table = TABLES[kind]
    await transaction.connection.execute(delete(table).where(table.c.id == config_id))
