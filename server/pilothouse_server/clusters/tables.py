"""The tables `clusters` and `orphans`, with the columns that are queried here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, LargeBinary, String, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from pilothouse_server.store.metadata import METADATA
from pilothouse_server.store.noun_tables import EnvelopeTable, NounTables

CLUSTERS = Table(
    "clusters",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(100)),
    Column("display_name", String(100)),
    Column("api_server", String(500)),
    Column("credentials", LargeBinary),
    Column("data_key", LargeBinary),
    Column("key_id", String(64)),
    Column("credentials_expires_at", DateTime(timezone=True)),
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
    Column("object_kinds", JSONB),
    Column("shared_gateways", ARRAY(Text)),
    Column("forbid_blocking_budgets", Boolean),
    Column("orphans_decided_in", UUID(as_uuid=True)),
    Column("orphans_seen_in", UUID(as_uuid=True)),
    comment="Kubernetes clusters that containers are brought up on; local is the default one.",
)

ORPHANS = Table(
    "orphans",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("cluster_name", String(100)),
    Column("object_uid", String(64)),
    Column("kind", String(63)),
    Column("kubernetes_namespace", String(253)),
    Column("name", String(253)),
    Column("state", String(20)),
    Column("first_seen_at", DateTime(timezone=True)),
    Column("decided_at", DateTime(timezone=True)),
    Column("decided_by", BigInteger),
    comment="Our objects on clusters that the database does not know, as the last sweep found them.",
)

SEALED_CREDENTIALS: Final = EnvelopeTable("clusters", "credentials")
CLUSTER_TABLES: Final = NounTables(tables=frozenset({"clusters", "orphans"}), sealed=(SEALED_CREDENTIALS,))
