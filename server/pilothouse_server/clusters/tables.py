"""The table `clusters`, as far as it is queried here."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA

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
    comment="Kubernetes clusters that containers are brought up on; local is the default one.",
)
