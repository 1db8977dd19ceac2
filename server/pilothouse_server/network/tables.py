"""The table of Services, with the columns that are queried here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Integer, String, Table, Text, column, table
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA, generation_columns
from pilothouse_server.store.noun_tables import NounTables

SERVICES = Table(
    "services",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(63)),
    Column("namespace_id", BigInteger),
    Column("owner", String(63)),
    Column("owner_id", BigInteger),
    Column("type", String(20)),
    Column("spec", JSONB),
    Column("labels", JSONB),
    Column("annotations", JSONB),
    Column("drift_policy", String(10)),
    Column("taken_over", String(64)),
    Column("status", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("addresses", JSONB),
    Column("node_ports", JSONB),
    Column("ready_endpoints", Integer),
    Column("endpoints", Integer),
    Column("conditions", JSONB),
    *generation_columns(),
    Column("stale_since", DateTime(timezone=True)),
    comment="Services of a namespace: stable addresses in front of pods.",
)

# Tables of other nouns, read here only for names and uids.
CONTAINERS = table(
    "containers",
    column("id", BigInteger()),
    column("uid", UUID(as_uuid=True)),
    column("name", String(253)),
    column("namespace_id", BigInteger()),
    column("deletion_requested_at", DateTime(timezone=True)),
    schema="public",
)
PORT_MAPPINGS = table(
    "port_mappings",
    column("container_id", BigInteger()),
    column("namespace_id", BigInteger()),
    column("service_name", String(253)),
    schema="public",
)

NETWORK_TABLES: Final = NounTables(tables=frozenset({"services", "service_changes"}))
