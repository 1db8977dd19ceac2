"""The facts that the store needs about the tables of a noun. The store itself names none of them.

Each noun has one `NounTables` in its `tables.py`; `app.py` hands them to the store. Statements of a noun take
settings as parameters of the same name (`:session_access_seconds`), and two times: `:earlier` and `:later` are those
of the two clocks, the server's and the database's.
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
    """The rows of a table under `condition` are deleted. `order` is an indexed order, '' where there are few rows."""

    table: str
    condition: str
    order: str


@dataclass(frozen=True, slots=True)
class SkewRepair:
    """Ends times that lie further ahead than any code sets them: one statement, which returns a row for each
    one.

    `kind` names the repaired rows in the log.
    """

    kind: str
    statement: str


@dataclass(frozen=True, slots=True)
class EnvelopeTable:
    """A table with encrypted values: the column of the ciphertext, and the columns that a value is bound to."""

    table: str
    column: str
    row: str = "uid"
    owner: str = ""

    def binding(self, row: str, owner: str) -> Binding:
        """The binding of the value of one row."""
        return Binding(self.table, self.column, row, owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class NounTables:
    """The names of a noun's tables, and the store's work on them: expiry, keys, partitions, clock-skew
    repair.
    """

    tables: frozenset[str]
    expiring: tuple[ExpiringRows, ...] = ()
    sealed: tuple[EnvelopeTable, ...] = ()
    partitioned: tuple[Scheme, ...] = ()
    skew_repairs: tuple[SkewRepair, ...] = ()


def outside(column: str, before: str, after: str) -> str:
    """The condition: longer ago than `before` by the earlier clock, or further ahead than `after` by the later one."""
    return f"{column} NOT BETWEEN {EARLIER} - interval '{before}' AND {LATER} + interval '{after}'"


def sealed_tables(nouns: Iterable[NounTables]) -> tuple[EnvelopeTable, ...]:
    """Every table with an encrypted value: a key may be forgotten once no row of them refers to it."""
    return tuple(table for noun in nouns for table in noun.sealed)


def parameters_of(statement: str, settings: Settings, clocks: Clocks) -> dict[str, Any]:
    """Returns a value, from the settings or clocks, for each parameter of a noun's statement."""
    values = {**msgspec.structs.asdict(settings), "earlier": clocks.earlier, "later": clocks.later}
    return {name: values[name] for name in text(statement).compile().params}
