"""The table `audit_sinks`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, LargeBinary, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA
from pilothouse_server.store.noun_tables import EnvelopeTable, NounTables

AUDIT_SINKS = Table(
    "audit_sinks",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(63)),
    Column("kind", String(10)),
    Column("format", String(20)),
    Column("address", String(2048)),
    Column("options", JSONB),
    Column("required", Boolean),
    Column("secrets", LargeBinary),
    Column("data_key", LargeBinary),
    Column("key_id", String(64)),
    Column("position", BigInteger),
    Column("skipped", BigInteger),
    Column("status", String(10)),
    Column("reason", String(50)),
    Column("message", Text),
    Column("attempts", Integer),
    Column("next_attempt_at", DateTime(timezone=True)),
    Column("failing_since", DateTime(timezone=True)),
    Column("last_delivered_at", DateTime(timezone=True)),
    Column("lease_owner", String(100)),
    Column("lease_epoch", BigInteger),
    Column("leased_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True)),
    Column("created_by", BigInteger),
    comment="Where records of the audit log are sent, each with the sequence of the last one that it has acknowledged.",
)

SEALED_SINKS: Final = EnvelopeTable("audit_sinks", "secrets")
SINK_TABLES: Final = NounTables(tables=frozenset({"audit_sinks"}), sealed=(SEALED_SINKS,))
