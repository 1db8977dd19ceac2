"""Resources of one table in namespaces, read as stored messages.

Reads by name, lists and the first states of watches return a message as it was stored (`store.rendered`). A row
without a stored message of this format is loaded completely, and its noun renders it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, Table, select, text

from pilothouse_server.store.filtering import FilterField, compile_filter
from pilothouse_server.store.in_namespaces import Matching, narrowed, read_matching
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    paginate_rows,
    parse_order_by,
    read_page,
)
from pilothouse_server.store.references import NAMESPACES, creator, is_about, keys_of
from pilothouse_server.store.rendered import RENDERED, Versioned, is_cached, with_missing
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Store
from pilothouse_server.values.cached_message import CachedMessage

CachedT = TypeVar("CachedT", bound=CachedMessage)
WholeT = TypeVar("WholeT", bound=Versioned)


def cached_message(row: Any) -> CachedMessage:
    """Returns the value of a row that has only the columns of the message."""
    return CachedMessage(row.id, row.namespace_id, row.creator, row.message)


@dataclass(eq=False)
class CachedRows(Generic[CachedT, WholeT]):
    """The resources of one type.

    `load` returns complete resources by their ids. `value` makes the value of a row, which has `columns` in addition to
    the message. `filters` and `orders` are those of the list. `joined` is another table with its join condition, for
    filters that name one of its columns.
    """

    resource_type: str
    table: Table
    load: Callable[[ReadTransaction, Sequence[int]], Awaitable[Sequence[WholeT]]]
    value: Callable[[Any], CachedT]
    filters: Mapping[str, FilterField]
    orders: Mapping[str, OrderField]
    columns: Sequence[ColumnElement[Any]] = ()
    joined: tuple[Table, ColumnElement[bool]] | None = None
    most_rows: int = 250

    def __post_init__(self) -> None:
        names = "".join(f", {column.name}" for column in self.columns)
        self._call = text(
            f"SELECT id, namespace_id, creator, message{names} "  # noqa: S608 - our own words
            f"FROM read_{self.resource_type}(:user_id, :namespace, :name, :format)"
        )
        self.select = lru_cache(maxsize=8)(self._select)

    def _select(self, message_format: int | ColumnElement[int]) -> Select[Any]:
        """Returns the select of the stored messages.

        The database function runs the same select for one name.
        """
        table = self.table
        return select(
            table.c.id, table.c.namespace_id, creator(table.c.created_by), RENDERED.c.message, *self.columns
        ).select_from(
            table.join(NAMESPACES, NAMESPACES.c.id == table.c.namespace_id).outerjoin(
                RENDERED, is_cached(self.resource_type, table, message_format)
            )
        )

    async def find(
        self, store: Store, user_id: int, namespace: str, name: str, message_format: int
    ) -> CachedT | None:
        """Returns the resource of this name, if the caller may read it.

        It takes one round trip and no rendering.
        """
        named = {"namespace": namespace, "name": name, "format": message_format}
        rows = await store.call(user_id, self._call, named)
        return self.value(rows[0]) if rows else None

    async def list_page(
        self, transaction: ReadTransaction, page: PageRequest, wanted: Matching, message_format: int
    ) -> tuple[Sequence[CachedT | WholeT], NextPage]:
        """Returns one page of the rows that match `wanted`, and the next page.

        It uses only the namespaces and the labels of `wanted`.
        """
        condition = compile_filter(page.filter, self.filters)
        keys = narrowed(
            keys_of(self.table, condition), self.table, wanted.namespace_id, wanted.selector, wanted.visible
        )
        if self.joined is not None and is_about(condition, self.joined[0]):
            keys = keys.join(*self.joined)
        order = parse_order_by(page.order_by, self.orders, default="name", unique=self.table.c.id)
        whole = self.select(message_format)

        async def read(part: PageRequest) -> Sequence[Row]:
            query = paginate_rows(whole, keys, self.table.c.id, order, part)
            return (await transaction.connection.execute(query)).all()

        rows, next_page = await read_page(read, order, page, lambda row: len(row.message or b""))
        return await self.ready(transaction, rows), next_page

    async def stream(
        self, transaction: ReadTransaction, wanted: Matching, message_format: int
    ) -> AsyncIterator[CachedT | WholeT]:
        """Yields every resource that matches, by namespace and name."""
        whole = self.select(message_format)
        async for rows in read_matching(
            transaction.connection, whole, self.table, wanted, most_rows=self.most_rows
        ):
            for each in await self.ready(transaction, rows):
                yield each

    async def ready(self, transaction: ReadTransaction, rows: Sequence[Any]) -> list[CachedT | WholeT]:
        """Returns the values of rows that `select` returned, in their order."""
        return await with_missing(rows, self.value, lambda ids: self.load(transaction, ids))
