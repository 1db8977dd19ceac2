"""The tables of applications."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA, version_columns
from pilothouse_server.store.noun_tables import NounTables

APPLICATIONS = Table(
    "applications",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(63)),
    Column("namespace_id", BigInteger),
    Column("labels", JSONB),
    Column("revision_number", Integer),
    Column("revisions_kept", Integer),
    Column("rollback_on_failure", Boolean),
    Column("progress_deadline_seconds", Integer),
    Column("status", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("healthy_since", DateTime(timezone=True)),
    Column("deadline_at", DateTime(timezone=True)),
    Column("look_at", DateTime(timezone=True)),
    Column("not_rolled_back", Text),
    Column("step", Integer),
    Column("installed", Boolean),
    *version_columns(),
    comment="Applications: objects of a namespace that change together.",
)

APPLICATION_MEMBERS = Table(
    "application_members",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("application_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("resource_type", String(50)),
    Column("api_group", String(253)),
    Column("object_kind", String(63)),
    Column("name", String(253)),
    Column("api_version", String(317)),
    Column("kind", String(63)),
    Column("generation", BigInteger),
    Column("phase", String(20)),
    Column("wave", Integer),
    Column("step", Integer),
    Column("hook", Boolean),
    Column("pruned", Boolean),
    Column("delete_on", JSONB),
    Column("outcome", String(20)),
    Column("outcome_reason", String(100)),
    Column("outcome_message", Text),
    comment="Objects of applications; each belongs to one at most.",
)

APPLICATION_DOCUMENTS = Table(
    "application_documents",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("application_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("digest", String(64)),
    Column("document", Text),
    comment="Documents of revisions of applications, equal ones once; no Secrets.",
)

APPLICATION_TABLES: Final = NounTables(
    tables=frozenset({"applications", "application_changes", "application_members", "application_documents"})
)
