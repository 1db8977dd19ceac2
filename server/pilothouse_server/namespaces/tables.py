"""The tables `namespaces` and `clusters`, as far as they are queried here."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA

NAMESPACES = Table(
    "namespaces",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(63)),
    Column("display_name", String(100)),
    Column("description", Text),
    Column("kubernetes_name", String(63)),
    Column("cluster_name", String(100)),
    Column("status", String(20)),
    Column("phase", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("resource_quota", JSONB(none_as_null=True)),
    Column("labels", JSONB),
    Column("annotations", JSONB),
    Column("conditions", JSONB),
    Column("adopted", Boolean),
    Column("generation", BigInteger),
    Column("observed_generation", BigInteger),
    Column("resource_version", BigInteger),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("created_by", BigInteger),
    Column("updated_by", BigInteger),
    Column("deletion_requested_at", DateTime(timezone=True)),
    Column("deleted_at", DateTime(timezone=True)),
    comment="What belongs to one tenant, kept apart from every other; one Kubernetes namespace each.",
    # Other nouns declare the columns they read, and may be imported first.
    extend_existing=True,
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
CREATORS = Table(
    "users",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("username", String(50)),
    comment="People and programs that log in; never deleted for good, see deleted_at.",
    extend_existing=True,
)
