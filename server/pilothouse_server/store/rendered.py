"""Serialized messages of resources, stored so that reads need not render them.

A change renders its resource for the event; `put_changes` stores a part of those bytes in `rendered_messages`,
with the `row_version` of the row that it was rendered from and the `format` of this release. A reader
compares both and renders the row if one differs. Values that change without the row (a name of another
row, a time that passes) are not in the stored part; the noun adds them at each read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    LargeBinary,
    and_,
    column,
    literal_column,
    table,
)

ReadyT = TypeVar("ReadyT")
WholeT = TypeVar("WholeT", bound="Versioned")

RENDERED = table(
    "rendered_messages",
    column("message", LargeBinary()),
    column("resource_type"),
    column("resource_id", BigInteger()),
    column("row_version", BigInteger()),
    column("format", Integer()),
    schema="public",
)


class Versioned(Protocol):
    """A resource whose row counts its writes."""

    @property
    def id(self) -> int:
        """The id of the row."""

    @property
    def row_version(self) -> int:
        """The version of the row that the resource was read from or written as."""


class Rendered(NamedTuple):
    """A resource as its event contains it.

    `kept_bytes` bytes from `kept_at` on are stored next to the row, none if that is 0. `format` grows with each release
    that renders more.
    """

    message: bytes
    format: int = 0
    kept_at: int = 0
    kept_bytes: int = 0

    def place(self, entity: Versioned) -> dict[str, int]:
        """Returns the stored part and its row version, as `put_changes` reads them.

        They are added to an event's document.
        """
        return {
            "row_version": entity.row_version,
            "format": self.format,
            "kept_at": self.kept_at,
            "kept_bytes": self.kept_bytes,
        }

    @property
    def kept(self) -> bytes:
        """The part that is stored."""
        return self.message[self.kept_at : self.kept_at + self.kept_bytes]


def is_cached(
    resource_type: str, rows: FromClause, message_format: int | ColumnElement[int]
) -> ColumnElement[bool]:
    """Returns the condition that `RENDERED` is a row's current message in this format."""
    return and_(
        RENDERED.c.resource_type == literal_column(f"'{resource_type}'"),
        RENDERED.c.resource_id == rows.c.id,
        RENDERED.c.row_version == rows.c.row_version,
        RENDERED.c.format == message_format,
    )


async def with_missing(
    rows: Sequence[Any],
    ready: Callable[[Any], ReadyT],
    load: Callable[[list[int]], Awaitable[Sequence[WholeT]]],
) -> list[ReadyT | WholeT]:
    """Returns the values of rows that have `id` and `message`, in their order.

    Rows without a message are loaded completely.
    """
    not_serialized = [row.id for row in rows if row.message is None]
    if not not_serialized:
        return [ready(row) for row in rows]
    whole = {item.id: item for item in await load(not_serialized)}
    # A resource that was deleted since the rows were read is left out.
    found = (whole.get(row.id) if row.message is None else ready(row) for row in rows)
    return [each for each in found if each is not None]
