"""The table of volumes, with the columns that are queried here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, String, Table, Text, column, table
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA, generation_columns
from pilothouse_server.store.noun_tables import NounTables

VOLUMES = Table(
    "volumes",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(253)),
    Column("namespace_id", BigInteger),
    Column("owner", String(63)),
    Column("owner_id", BigInteger),
    Column("type", String(50)),
    Column("storage_class", String(100)),
    Column("size", String(20)),
    Column("capacity", String(20)),
    Column("access_mode", String(20)),
    Column("mount_path", String(500)),
    Column("host_path", String(500)),
    Column("source_name", String(253)),
    Column("kubernetes_name", String(253)),
    Column("taken_over", String(64)),
    Column("claim_uid", String(64)),
    Column("persistent_volume", String(253)),
    Column("claim_storage_class", String(253)),
    Column("status", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("labels", JSONB),
    Column("annotations", JSONB),
    Column("spec", JSONB),
    Column("conditions", JSONB),
    *generation_columns(),
    Column("stale_since", DateTime(timezone=True)),
    comment="Storage that containers of a namespace can mount.",
)

# Tables of other nouns, read here only to find the containers that mount a volume.
CONTAINERS = table(
    "containers",
    column("id", BigInteger()),
    column("name", String(253)),
    column("deletion_requested_at", DateTime(timezone=True)),
    schema="public",
)
CONTAINER_VOLUMES = table(
    "container_volumes",
    column("container_id", BigInteger()),
    column("volume_id", BigInteger()),
    schema="public",
)

STORAGE_TABLES: Final = NounTables(tables=frozenset({"claim_changes", "mount_changes", "volumes"}))
