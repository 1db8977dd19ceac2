"""The table `namespaces`, with the columns that are queried here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, DateTime, String, Text, column, table
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from pilothouse_server.store.noun_tables import NounTables

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
    column("default_pod_security", String(20)),
    column("pod_security_level", String(20)),
    column("legal_hold", Boolean),
    column("service_types", ARRAY(Text())),
    column("external_sources", ARRAY(Text())),
    column("allowed_hosts", ARRAY(Text())),
    column("network_policies", String(20)),
    column("enforce_on_cluster", Boolean()),
    column("generation", BigInteger()),
    column("observed_generation", BigInteger()),
    column("resource_version", BigInteger()),
    column("row_version", BigInteger()),
    column("created_at", DateTime(timezone=True)),
    column("updated_at", DateTime(timezone=True)),
    column("created_by", BigInteger()),
    column("updated_by", BigInteger()),
    column("deletion_requested_at", DateTime(timezone=True)),
    column("deleted_at", DateTime(timezone=True)),
    schema="public",
)

# The noun clusters owns this table; only the staleness of a cluster is read here.
CLUSTERS = table(
    "clusters",
    column("name", String(100)),
    column("stale_since", DateTime(timezone=True)),
    schema="public",
)

NAMESPACE_TABLES: Final = NounTables(tables=frozenset({"namespaces", "quota_counters"}))
