"""The tables and views of usage that are queried with SQLAlchemy expressions.

Samples and their roll-ups are written and read by textual SQL (`repository`): window functions and unions are clearer
as SQL.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    Numeric,
    String,
    Table,
    Text,
    column,
    func,
    table,
)
from sqlalchemy.dialects.postgresql import UUID

from pilothouse_server.store.metadata import METADATA
from pilothouse_server.store.noun_tables import NounTables
from pilothouse_server.store.partitions import Scheme

CONTAINER_DETAILS = Table(
    "container_details",
    METADATA,
    Column("id", BigInteger),
    Column("name", String(253)),
    Column("display_name", String(253)),
    Column("status", String(20)),
    Column("phase", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("kubernetes_name", String(253)),
    Column("pod_name", String(253)),
    Column("pod_ip", String(45)),
    Column("host_ip", String(45)),
    Column("restart_count", Integer),
    Column("cpu_request", String(20)),
    Column("cpu_limit", String(20)),
    Column("memory_request", String(20)),
    Column("memory_limit", String(20)),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("namespace_name", String(63)),
    Column("namespace_k8s_name", String(63)),
    Column("image_name", String(255)),
    Column("image_tag", String(128)),
    Column("image_repository", String(255)),
    Column("created_by_username", String(50)),
    Column("created_by_full_name", String(100)),
    Column("uptime_seconds", Numeric),
    Column("cpu_usage_percent", Numeric(12, 2)),
    Column("memory_usage_percent", Numeric(12, 2)),
    Column("last_metric_timestamp", DateTime(timezone=True)),
    Column("namespace_id", BigInteger),
    comment="A view: containers with names of what they refer to and their newest usage sample.",
    info={"is_view": True},
)

# The materialized view contains all tenants; this function returns only the rows that the caller may see.
SUMMARIES = (
    func.public.reachable_container_summary()
    .table_valued(
        Column("namespace_id", BigInteger),
        Column("namespace_name", String(63)),
        Column("total_containers", BigInteger),
        Column("running_containers", BigInteger),
        Column("stopped_containers", BigInteger),
        Column("failed_containers", BigInteger),
        Column("total_size_bytes", Numeric),
        name="summaries",
    )
    .render_derived()
)

# Tables of other nouns, read here only for names.
CONTAINERS = table(
    "containers",
    column("id", BigInteger()),
    column("uid", UUID(as_uuid=True)),
    column("name", String(253)),
    column("namespace_id", BigInteger()),
    schema="public",
)

USAGE: Final = Scheme("container_resource_usage", "day")
METRICS_TABLES: Final = NounTables(
    tables=frozenset(
        {
            "container_resource_usage",
            "container_usage_daily",
            "container_usage_days",
            "container_usage_hourly",
        }
    ),
    partitioned=(USAGE,),
)
