"""The table of carried objects, with the columns that are queried here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA, generation_columns
from pilothouse_server.store.noun_tables import NounTables

OBJECTS = Table(
    "objects",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(253)),
    Column("namespace_id", BigInteger),
    Column("api_group", String(253)),
    Column("api_version", String(317)),
    Column("kind", String(63)),
    Column("labels", JSONB),
    Column("annotations", JSONB),
    Column("document", Text),
    Column("drift_policy", String(10)),
    Column("protected", Boolean),
    Column("privileged", Boolean),
    Column("rights", JSONB),
    Column("taken_over", String(64)),
    Column("status", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("health", String(20)),
    Column("addresses", JSONB),
    Column("backends", JSONB),
    Column("certificates", JSONB),
    Column("observed_status", Text),
    Column("conditions", JSONB),
    Column("contests", JSONB),
    *generation_columns(),
    Column("stale_since", DateTime(timezone=True)),
    comment="Carried objects: those of kinds that have no noun of their own.",
)

OBJECT_TABLES: Final = NounTables(tables=frozenset({"objects"}))
