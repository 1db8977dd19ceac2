"""The one SQLAlchemy MetaData on which every noun declares its tables.

Tables are declared for querying only: the migrations are the schema's source, and a test compares the two.
Constraints and indexes are therefore not repeated here.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, MetaData

METADATA = MetaData(schema="public", naming_convention={"pk": "pk_%(table_name)s"})


def version_columns() -> tuple[Column[Any], ...]:
    """Returns the columns that count the changes of a resource.

    They include the times and users of the first and the last change.
    """
    return (
        Column("resource_version", BigInteger),
        Column("row_version", BigInteger),
        Column("created_at", DateTime(timezone=True)),
        Column("updated_at", DateTime(timezone=True)),
        Column("created_by", BigInteger),
        Column("updated_by", BigInteger),
    )


def generation_columns() -> tuple[Column[Any], ...]:
    """Returns the columns of a resource that the reconciler applies to its cluster."""
    return (
        Column("generation", BigInteger),
        Column("observed_generation", BigInteger),
        *version_columns(),
        Column("deletion_requested_at", DateTime(timezone=True)),
    )
