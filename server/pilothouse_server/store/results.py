"""Rows as repositories read them: by attribute, by name, or by position."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import asyncpg


class Row(asyncpg.Record):  # type: ignore[misc]
    """One row.

    A column is read as an attribute, or as an item by its name or position.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Returns the column `name`. Raises AttributeError."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a row without the column {name}") from None


@functools.lru_cache(maxsize=1000)
def row_class(columns: tuple[str, ...]) -> type[Row]:
    """Returns the class of rows with these columns.

    Its attributes are read without a search by name.
    """
    read = {name: property(itemgetter(place)) for place, name in enumerate(columns) if not hasattr(Row, name)}
    return type("Row", (Row,), {"__slots__": (), **read})


class RowCountError(Exception):
    """A statement returned another number of rows than it must, which is a bug."""


class Result:
    """All rows of one statement."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        """Returns every row."""
        return self._rows

    def first(self) -> Any:
        """Returns the first row; None if there is none."""
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        """Returns the only row. Raises RowCountError."""
        if len(self._rows) != 1:
            raise RowCountError(f"{len(self._rows)} rows where there must be one")
        return self._rows[0]

    def one_or_none(self) -> Any:
        """Returns the only row; None if there is none. Raises RowCountError."""
        return self.one() if self._rows else None

    def scalar_one(self) -> Any:
        """Returns the first column of the only row. Raises RowCountError."""
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        """Returns the first column of the only row; None if there is no row.

        Raises RowCountError.
        """
        return self.one()[0] if self._rows else None

    def scalars(self) -> list[Any]:
        """Returns the first column of every row."""
        return [row[0] for row in self._rows]
