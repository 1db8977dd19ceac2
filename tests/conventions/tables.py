"""The conventions of the schema, checked on the models: tables have a comment, and constraints have a name.

The database reports a violation by the constraint's name, and the API's errors are found by that name: a name that
PostgreSQL generates would change with the columns.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator

from sqlalchemy import Constraint, Index, MetaData, PrimaryKeyConstraint, Table

import pilothouse_server


def all_tables() -> list[Table]:
    """Returns every table of every `tables` module of the server, ordered by name."""
    tables: dict[str, Table] = {}
    for module in pkgutil.walk_packages(pilothouse_server.__path__, "pilothouse_server."):
        if "tables" not in module.name.split("."):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            found = value if isinstance(value, Table) else getattr(value, "__table__", None)
            metadata = value if isinstance(value, MetaData) else getattr(found, "metadata", None)
            if isinstance(metadata, MetaData):
                tables.update(metadata.tables)
    return [tables[name] for name in sorted(tables)]


def findings(tables: Iterable[Table]) -> Iterator[str]:
    """Yields a line for each table without a comment and each constraint, foreign key or index without a name."""
    for table in tables:
        if not table.comment:
            yield f"table {table.fullname}: no comment: say what one row is"
        rules: list[Constraint | Index] = [*table.constraints, *table.indexes]
        for rule in rules:
            columns = ", ".join(column.name for column in getattr(rule, "columns", ()))
            # SQLAlchemy gives every table a primary key object, even a table without columns.
            if rule.name is None and (columns or not isinstance(rule, PrimaryKeyConstraint)):
                kind = type(rule).__name__
                yield f"table {table.fullname}: {kind} on ({columns}) has no name: name it after its rule"
