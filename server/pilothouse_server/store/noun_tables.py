"""The facts that the store needs about a noun's tables.

The store itself names no noun's table. Each noun has one `NounTables` in its `tables.py`; `app.py` passes them to the
store. Statements of a noun take settings as parameters of the same name (`:session_access_seconds`), and two times:
`:earlier` and `:later` are the earlier and the later of the server's and the database's time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import text

from pilothouse_server.encryption.envelopes import Binding
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.clock import Clocks
from pilothouse_server.store.partitions import Scheme

EARLIER: Final = "CAST(:earlier AS timestamptz)"
LATER: Final = "CAST(:later AS timestamptz)"


@dataclass(frozen=True, slots=True)
class ExpiringRows:
    """Rows that expiry deletes: those under `condition`.

    `order` is an indexed order, '' if there are few rows.
    """

    table: str
    condition: str
    order: str


@dataclass(frozen=True, slots=True)
class SkewRepair:
    """One statement that ends times further ahead than any code sets them.

    It returns one row for each repaired row. `kind` names the repaired rows in the log.
    """

    kind: str
    statement: str


@dataclass(frozen=True, slots=True)
class EnvelopeTable:
    """A table with encrypted values.

    It has the column of the ciphertext, and the columns that a value is bound to.
    """

    table: str
    column: str
    row: str = "uid"
    owner: str = ""

    def binding(self, row: str, owner: str) -> Binding:
        """Returns the binding of the value of one row."""
        return Binding(self.table, self.column, row, owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class NounTables:
    """The names of a noun's tables, and the work of the store on them.

    That is expiry, keys, partitions and clock-skew repair.
    """

    tables: frozenset[str]
    expiring: tuple[ExpiringRows, ...] = ()
    sealed: tuple[EnvelopeTable, ...] = ()
    partitioned: tuple[Scheme, ...] = ()
    skew_repairs: tuple[SkewRepair, ...] = ()


def outside(column: str, before: str, after: str) -> str:
    """Returns the SQL condition for a time that is outside the expected range.

    It is longer ago than `before` by the earlier clock, or further ahead than `after` by the later one.
    """
    return f"{column} NOT BETWEEN {EARLIER} - interval '{before}' AND {LATER} + interval '{after}'"


def sealed_tables(nouns: Iterable[NounTables]) -> tuple[EnvelopeTable, ...]:
    """Returns every table with encrypted values.

    A key may be deleted once no row of these tables refers to it.
    """
    return tuple(table for noun in nouns for table in noun.sealed)


def parameters_of(statement: str, settings: Settings, clocks: Clocks) -> dict[str, Any]:
    """Returns a value for each parameter of a noun's statement.

    The values come from the settings and the clocks.
    """
    values = {**msgspec.structs.asdict(settings), "earlier": clocks.earlier, "later": clocks.later}
    return {name: values[name] for name in text(statement).compile().params}
