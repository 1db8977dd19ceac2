"""The array types of PostgreSQL's built-in types, as asyncpg would read them.

asyncpg knows the built-in types, but not their array types. It would read these on each new connection, by a statement
whose plan costs PostgreSQL ten milliseconds and more. Their oids are fixed in PostgreSQL's sources and the same
on every server, so a new connection need not read them. A test compares them with the database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

# Name of a type -> the oid of its array type, and its own oid.
ARRAYS: Final[Mapping[str, tuple[int, int]]] = {
    "bool": (1000, 16),
    "bytea": (1001, 17),
    "int2": (1005, 21),
    "int4": (1007, 23),
    "text": (1009, 25),
    "varchar": (1015, 1043),
    "int8": (1016, 20),
    "float4": (1021, 700),
    "float8": (1022, 701),
    "date": (1182, 1082),
    "timestamptz": (1185, 1184),
    "numeric": (1231, 1700),
    "uuid": (2951, 2950),
}


class Known:
    """Stands in for asyncpg's introspection statement.

    Its name shows asyncpg that no statement must be prepared again.
    """

    name = "known"


def _row(name: str, number: int, element: int) -> dict[str, Any]:
    return {
        "oid": number,
        "ns": "pg_catalog",
        "name": f"_{name}",
        "kind": b"b",
        "basetype": None,
        "elemtype": element,
        "elemdelim": ",",
        "range_subtype": None,
        "attrtypoids": None,
        "attrnames": None,
        "depth": 1,
        "basetype_name": None,
        "elemtype_name": name,
        "range_subtype_name": None,
    }


_ROWS: Final = {number: _row(name, number, element) for name, (number, element) in ARRAYS.items()}


def known(numbers: Collection[int]) -> tuple[list[dict[str, Any]], Known] | None:
    """Returns the database's description of the types with these oids.

    Returns None if asyncpg must read it.
    """
    rows = [_ROWS[number] for number in numbers if number in _ROWS]
    return (rows, Known()) if len(rows) == len(numbers) else None
