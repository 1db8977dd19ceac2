"""Keyset paging: no row is repeated or missed despite concurrent writes.

That is guaranteed for rows that exist while the pages are read.

A page contains the rows after the last row of the previous page, in a total order: the requested columns, then a
unique column as tie-breaker. There is no OFFSET, so rows that are inserted or deleted do not shift the others.
NULLs are sorted as PostgreSQL does by default (last ascending, first descending), so that the usual indexes serve.

The token contains that last row's values. It is authenticated with a key of the server, and bound to the
method, the caller, the filter and the order. So it cannot be forged, passed to another caller, or used
with another query.

In a repository::

    order = parse_order_by(
        page.order_by, {"name": OrderField(TABLE.c.name), …}, default="name", unique=TABLE.c.id
    )
    rows = (await connection.execute(paginate(select(TABLE).where(…), order, page))).all()
    rows, next_page = finish_page(rows, order, page)

If a row is joined from many tables, use `paginate_rows`: an index over the columns of filter and order first finds
the page's rows, and the other tables are then read for these rows only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, literal, or_, tuple_

from pilothouse_server.errors import InvalidArgument, invalid
from pilothouse_server.flowcontrol.classes import is_wide
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.results import Row

DEFAULT_PAGE_SIZE: Final = 50
# The bound of every field with the option `page_size`.
LARGEST_PAGE_SIZE: Final = 1000
# A page ends before it would be larger, with one row at least. Clients of gRPC take messages of up to 4 MiB by default.
LARGEST_PAGE_BYTES: Final = 3 * 1024 * 1024
LONGEST_TOKEN: Final = 4096
MOST_ORDER_COLUMNS: Final = 5
# The first byte of a token's payload: a later release may use another layout.
_VERSION: Final = b"1"
_TAG_BYTES: Final = 16
_KEY_LABEL: Final = "page_key_"
_NO_PARAMETERS: Final[Mapping[str, Any]] = {}

T = TypeVar("T")
_SelectType = TypeVar("_SelectType", bound=Select[Any])


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A caller's request for a page of a list.

    `binding` names the facts that the token is bound to in addition to filter and order: the method, the
    caller, and everything else that narrows the list (namespace, label selector). `key` authenticates tokens:
    32 bytes, the same on all replicas. `page_size` is 0 for the default of 50; a value above 1,000 is taken
    as 1,000.
    """

    key: bytes = field(repr=False)
    page_size: int = 0
    page_token: str = ""
    order_by: str = ""
    filter: str = ""
    binding: tuple[str, ...] = ()

    @property
    def limit(self) -> int:
        """The number of rows on the page.

        Raises:
            InvalidArgument: of the field `page_size`, if it is negative.
        """
        if self.page_size < 0:
            raise invalid("page_size", "must not be negative")
        return min(self.page_size or DEFAULT_PAGE_SIZE, LARGEST_PAGE_SIZE)

    @property
    def is_wide(self) -> bool:
        """Whether the page has many rows.

        Each user may have one such page in progress, and other work has priority.
        """
        return is_wide(self.page_size)


@dataclass(frozen=True, slots=True, eq=False)
class OrderField:
    """A column that a list may be ordered by.

    Set `nullable` only if the column may be NULL: it prevents the condition that an index serves with one descent.
    """

    column: ColumnElement[Any]
    nullable: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class OrderColumn:
    """One column of an order."""

    name: str
    column: ColumnElement[Any]
    descending: bool = False
    nullable: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class OrderSpec:
    """A total order: the last column is unique."""

    columns: tuple[OrderColumn, ...]

    @property
    def text(self) -> str:
        """The canonical form of the order, to which tokens are bound."""
        return ",".join(f"{item.name} desc" if item.descending else item.name for item in self.columns)


def parse_order_by(
    text: str, fields: Mapping[str, OrderField], *, default: str, unique: ColumnElement[Any]
) -> OrderSpec:
    """Parses an AIP-132 order such as `create_time desc, name`.

    An empty text means `default`. `unique` is appended, in the direction of the last column, unless the text names it
    already.

    Raises:
        InvalidArgument: of the field `order_by`; for an unknown field the message lists the known ones.
    """
    columns: list[OrderColumn] = []
    for part in (text if text.strip() else default).split(","):
        words = part.split()
        if not words or len(words) > 2 or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
            raise _order_error(
                'must be fields with "asc" or "desc", separated by commas, such as create_time desc, name'
            )
        found = fields.get(words[0])
        if found is None:
            raise _order_error(f"unknown field {words[0][:63]!r}; known: {', '.join(fields)}")
        if any(item.name == words[0] for item in columns):
            raise _order_error(f"names {words[0]} twice")
        descending = len(words) == 2 and words[1].lower() == "desc"
        columns.append(OrderColumn(words[0], found.column, descending, found.nullable))
    if len(columns) > MOST_ORDER_COLUMNS:
        raise _order_error(f"must not name more than {MOST_ORDER_COLUMNS} fields")
    if not any(item.column is unique for item in columns):
        columns.append(OrderColumn("", unique, columns[-1].descending))
    return OrderSpec(tuple(columns))


def paginate(select: _SelectType, order: OrderSpec, page: PageRequest) -> _SelectType:
    """Returns the select of one page and one more row.

    The extra row shows `finish_page` whether another page follows. The values of the order's columns are added to each
    row as `page_key_0` and so on.

    Raises:
        InvalidArgument: of the field `page_token`: garbled, or of another caller or query.
    """
    result: Any = _one_page(select, order, page).add_columns(*_labelled(order))
    return cast("_SelectType", result)


def paginate_rows(
    whole: Select[Any], keys: Select[Any], unique: ColumnElement[Any], order: OrderSpec, page: PageRequest
) -> Select[Any]:
    """Returns the select of one page, which finds the rows before it reads them.

    It replaces `paginate` for rows that are joined from many tables. `keys` is a select without columns, from the
    tables that the conditions use, with those conditions. `whole` selects complete rows without conditions; its joins
    may neither drop nor repeat a row. Both have the column `unique`.

    Raises:
        InvalidArgument: of the field `page_token`: garbled, or of another caller or query.
    """
    return _whole_rows(whole, _one_page(keys, order, page), unique, order)


async def every_page(
    read: Callable[[PageRequest], Awaitable[tuple[Sequence[T], NextPage]]],
) -> AsyncIterator[T]:
    """Yields the items of all pages of a list, for a first state.

    Nothing is open between two pages.
    """
    page = PageRequest(key=bytes(32), page_size=LARGEST_PAGE_SIZE)
    while True:
        found, following = await read(page)
        for item in found:
            yield item
        if not following.token:
            return
        page = replace(page, page_token=following.token)


async def read_in_pages(
    connection: Connection,
    whole: Select[Any],
    keys: Select[Any],
    unique: ColumnElement[Any],
    order: OrderSpec,
    *,
    parameters: Mapping[str, Any] = _NO_PARAMETERS,
    kept: bool = False,
    most_rows: int = 250,
) -> AsyncIterator[Sequence[Row]]:
    """Yields every row, in pages of at most `most_rows`, the first of them small.

    See `paginate_rows`. `parameters` are the values of the bind parameters in `keys`. With `kept`, the statement of the
    first page is built once and cached; `keys`, `whole` and `order` must then be the same objects in all calls.

    Between two pages only the connection's transaction is open. Its isolation level decides whether all pages show
    the same moment.
    """
    size = min(50, most_rows)
    query = (_kept_page_of if kept else _page_of)(whole, keys, unique, order, size)
    while True:
        rows = (await connection.execute(query, parameters)).all()
        if rows:
            yield rows
        if len(rows) < size:
            return
        last = rows[-1]
        after = _after(order, [last[f"{_KEY_LABEL}{index}"] for index in range(len(order.columns))])
        size = most_rows
        query = _page_of(whole, keys.where(after), unique, order, size)


def _page_of(
    whole: Select[Any], keys: Select[Any], unique: ColumnElement[Any], order: OrderSpec, size: int
) -> Select[Any]:
    return _whole_rows(whole, _ordered(keys, order).limit(size), unique, order)


# Building a statement takes longer than PostgreSQL takes to run it, and hundreds of watches may begin concurrently.
_kept_page_of = lru_cache(maxsize=256)(_page_of)


def _whole_rows(
    whole: Select[Any], keys: Select[Any], unique: ColumnElement[Any], order: OrderSpec
) -> Select[Any]:
    """Returns the select of the complete rows that `keys` finds, in order.

    The order's columns are added.
    """
    found = keys.add_columns(unique.label("page_row"), *_labelled(order)).subquery("page")
    columns = [found.c[f"{_KEY_LABEL}{index}"] for index in range(len(order.columns))]
    ordering = [
        column.desc() if item.descending else column.asc()
        for column, item in zip(columns, order.columns, strict=True)
    ]
    return whole.join(found, found.c.page_row == unique).add_columns(*columns).order_by(*ordering)


def _one_page(select: Select[Any], order: OrderSpec, page: PageRequest) -> Select[Any]:
    """Returns the select of the rows of a page and one more, in order."""
    paged = select.where(_after(order, _read_token(order, page))) if page.page_token else select
    return _ordered(paged, order).limit(page.limit + 1)


def _ordered(select: Select[Any], order: OrderSpec) -> Select[Any]:
    return select.order_by(
        *(item.column.desc() if item.descending else item.column.asc() for item in order.columns)
    )


def _labelled(order: OrderSpec) -> list[ColumnElement[Any]]:
    return [item.column.label(f"{_KEY_LABEL}{index}") for index, item in enumerate(order.columns)]


@dataclass(frozen=True, slots=True, eq=False)
class NextPage:
    """The position after a page, of which `paginate` has read `rows`.

    The page has as many rows as were requested, or fewer if they are too large.
    """

    rows: Sequence[Row] = field(repr=False)
    order: OrderSpec
    page: PageRequest

    def after(self, count: int) -> str:
        """Returns the token of the page that begins after the first `count` rows.

        `count` is at least 1. Returns '' if no row follows.
        """
        if count >= len(self.rows):
            return ""
        return _token(self.rows[count - 1], self.order, self.page)

    @property
    def token(self) -> str:
        """The token of the page that follows if this page has all its rows."""
        return self.after(self.page.limit)


def finish_page(rows: Sequence[Row], order: OrderSpec, page: PageRequest) -> tuple[Sequence[Row], NextPage]:
    """Returns the rows of the page without the extra row, and the `NextPage`."""
    return rows[: page.limit], NextPage(rows, order, page)


async def read_page(
    read: Callable[[PageRequest], Awaitable[Sequence[Row]]],
    order: OrderSpec,
    page: PageRequest,
    size_of: Callable[[Row], int],
) -> tuple[Sequence[Row], NextPage]:
    """Reads a page whose rows may be large, with bounded memory.

    About twice `LARGEST_PAGE_BYTES` are in memory at most, or 50 rows. Returns the result of `finish_page`, or fewer
    rows.

    `read` executes the query of a page (`paginate`). The sizes of the first 50 rows are used to estimate the others.
    """
    rows: list[Row] = []
    size, part = 0, replace(page, page_size=min(page.limit, DEFAULT_PAGE_SIZE))
    while True:
        found = await read(part)
        rows += found[: part.limit]
        size += sum(map(size_of, found[: part.limit]))
        if len(found) <= part.limit:
            return rows, NextPage(rows, order, page)
        left = page.limit - len(rows)
        if not left or size >= LARGEST_PAGE_BYTES:
            return rows, NextPage([*rows, found[part.limit]], order, page)
        fitting = (LARGEST_PAGE_BYTES - size) * len(rows) // max(size, 1) + 1
        token = NextPage(found, order, part).token
        part = replace(part, page_size=min(left, fitting), page_token=token)


async def read_page_in_slices(
    connection: Connection,
    query: Select[Any],
    order: OrderSpec,
    page: PageRequest,
    size_of: Callable[[Row], int],
) -> tuple[Sequence[Row], NextPage]:
    """Reads a page by one query (`paginate`), in slices between which other tasks run.

    Returns the result of `finish_page`, or fewer rows if all would be larger than `LARGEST_PAGE_BYTES`. It must be
    called in a transaction.
    """
    rows: list[Row] = []
    size, share = 0, Share(last=page.is_wide)
    async with aclosing(connection.slices(query)) as slices:
        async for found in slices:
            rows += found
            size += sum(map(size_of, found))
            if size > LARGEST_PAGE_BYTES and len(rows) > 1:
                # The last row is not on the page: it only shows that another page follows.
                return rows[: min(page.limit, len(rows) - 1)], NextPage(rows, order, page)
            await share.used()
    return finish_page(rows, order, page)


def _token(last: Row, order: OrderSpec, page: PageRequest) -> str:
    values = []
    for index, item in enumerate(order.columns):
        value = last[f"{_KEY_LABEL}{index}"]
        # A comparison with NULL would silently end the list early.
        assert value is not None or item.nullable, (
            f"the order column {item.name} is declared never to be missing"
        )
        values.append(_encode(value))
    payload = _VERSION + json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(_tag(order, page, payload) + payload).rstrip(b"=").decode()


def _read_token(order: OrderSpec, page: PageRequest) -> list[Any]:
    error = invalid(
        "page_token",
        "is not a token of this list: send the next_page_token of the previous page, with the same filter and order",
        reason="INVALID_PAGE_TOKEN",
    )
    token = page.page_token
    if len(token) > LONGEST_TOKEN or not token.isascii():
        raise error
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise error from None
    tag, payload = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(order, page, payload)) or payload[:1] != _VERSION:
        raise error
    try:
        values = [_decode(*value) for value in json.loads(payload[1:])]
    except (ValueError, TypeError, InvalidOperation):
        raise error from None
    if len(values) != len(order.columns):
        raise error
    return values


def _tag(order: OrderSpec, page: PageRequest, payload: bytes) -> bytes:
    bound = json.dumps(["page_token", *page.binding, page.filter, order.text]).encode()
    # The length comes first, so that no byte can move between the bound facts and the payload.
    message = len(bound).to_bytes(8, "big") + bound + payload
    return hmac.digest(page.key, message, hashlib.sha256)[:_TAG_BYTES]


def _after(order: OrderSpec, values: Sequence[Any]) -> ColumnElement[bool]:
    """Returns the condition of the rows that come after `values` in the order."""
    columns = order.columns
    bound = [literal(value, item.column.type) for item, value in zip(columns, values, strict=True)]
    plain = not any(item.nullable for item in columns)
    if plain and len({item.descending for item in columns}) == 1:
        # One row comparison, which an index on these columns serves with one descent.
        left, right = tuple_(*(item.column for item in columns)), tuple_(*bound)
        condition: ColumnElement[bool] = left < right if columns[0].descending else left > right
        if len({getattr(item.column, "table", None) for item in columns}) == 1:
            return condition
        # No index covers columns of several tables, so the first column has a condition that its own index serves.
        first = columns[0].column
        return and_(first <= bound[0] if columns[0].descending else first >= bound[0], condition)
    steps: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for item, value, parameter in zip(columns, values, bound, strict=True):
        steps.append(and_(*equal, _beyond(item, value, parameter)))
        equal.append(item.column.is_(None) if value is None else item.column == parameter)
    return or_(*steps)


def _beyond(item: OrderColumn, value: Any, parameter: ColumnElement[Any]) -> ColumnElement[bool]:
    """Returns the condition that one column comes after the value.

    PostgreSQL sorts NULL as the highest value.
    """
    if value is None:
        return item.column.is_not(None) if item.descending else false()
    if item.descending:
        below: ColumnElement[bool] = item.column < parameter
        return below
    above: ColumnElement[bool] = item.column > parameter
    return or_(above, item.column.is_(None)) if item.nullable else above


def _encode(value: Any) -> list[Any]:
    match value:
        case None:
            return ["n", ""]
        case bool() | int() | str():
            return ["v", value]
        case float():
            return ["f", value.hex()]
        case Decimal():
            return ["d", str(value)]
        case datetime():
            return ["t", value.isoformat()]
        case date():
            return ["a", value.isoformat()]
        case UUID():
            return ["u", str(value)]
    raise TypeError(f"a column of type {type(value).__name__} cannot order a list")


def _decode(kind: str, value: Any) -> Any:
    match kind:
        case "n":
            return None
        case "v":
            return value
        case "f":
            return float.fromhex(value)
        case "d":
            return Decimal(value)
        case "t":
            return datetime.fromisoformat(value)
        case "a":
            return date.fromisoformat(value)
        case "u":
            return UUID(value)
    raise ValueError(kind)


def _order_error(description: str) -> InvalidArgument:
    return invalid("order_by", description, reason="INVALID_ORDER_BY")
