"""The tables of revisions, and of the secret values stored with them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Integer, LargeBinary, String, Table
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA
from pilothouse_server.store.noun_tables import EnvelopeTable, NounTables

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

REVISION_VALUES = Table(
    "revision_values",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("revision_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("secret_name", String(253)),
    Column("place", String(400)),
    Column("ciphertext", LargeBinary),
    Column("data_key", LargeBinary),
    Column("key_id", String(64)),
    Column("created_at", DateTime(timezone=True)),
    comment="Values of secrets as revisions have them, each encrypted for its revision.",
)

SEALED_VALUES: Final = EnvelopeTable("revision_values", "ciphertext", row="place", owner="namespace_id")
REVISION_TABLES: Final = NounTables(
    tables=frozenset({"revisions", "revision_values"}), sealed=(SEALED_VALUES,)
)
