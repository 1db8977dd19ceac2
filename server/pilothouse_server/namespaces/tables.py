"""The tables `namespaces` and `clusters`, as far as they are queried here."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, String, Table, Text, column, table
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA

NAMESPACES = table(
    "namespaces",
    column("id", BigInteger()),
    column("uid", UUID()),
    column("name", String(63)),
    column("display_name", String(100)),
    column("description", Text()),
    column("kubernetes_name", String(63)),
    column("cluster_name", String(100)),
    column("status", String(20)),
    column("phase", String(20)),
    column("reason", String(100)),
    column("message", Text()),
    column("resource_quota", JSONB(none_as_null=True)),
    column("labels", JSONB()),
    column("annotations", JSONB()),
    column("conditions", JSONB()),
    column("adopted", Boolean()),
    column("generation", BigInteger()),
    column("observed_generation", BigInteger()),
    column("resource_version", BigInteger()),
    column("created_at", DateTime(timezone=True)),
    column("updated_at", DateTime(timezone=True)),
    column("created_by", BigInteger()),
    column("updated_by", BigInteger()),
    column("deletion_requested_at", DateTime(timezone=True)),
    column("deleted_at", DateTime(timezone=True)),
    schema="public",
)

CLUSTERS = Table(
    "clusters",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(100)),
    Column("display_name", String(100)),
    Column("api_server", String(500)),
    Column("labels", JSONB),
    Column("annotations", JSONB),
    Column("status", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("version", String(100)),
    Column("last_seen_at", DateTime(timezone=True)),
    Column("stale_since", DateTime(timezone=True)),
    Column("resource_version", BigInteger),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("created_by", BigInteger),
    Column("updated_by", BigInteger),
    Column("deleted_at", DateTime(timezone=True)),
    comment="Kubernetes clusters that containers are brought up on; local is the default one.",
)

# Only the name of who made something is read here; the noun identity owns the table.
CREATORS = table(
    "users",
    column("id", BigInteger()),
    column("username", String(50)),
    schema="public",
)
