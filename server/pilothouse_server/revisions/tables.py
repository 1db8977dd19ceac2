"""The table of revisions."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Integer, String, Table
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA
from pilothouse_server.store.noun_tables import NounTables

REVISIONS = Table(
    "revisions",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("resource_type", String(50)),
    Column("resource_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("number", Integer),
    Column("document", JSONB),
    Column("origin", Integer),
    Column("operation_id", UUID(as_uuid=True)),
    Column("created_by", BigInteger),
    Column("created_at", DateTime(timezone=True)),
    comment="The newest desired states of a resource, each whole, to compare and to go back to.",
)

REVISION_TABLES: Final = NounTables(tables=frozenset({"revisions"}))
