"""The tables of containers and their dependents, with the columns that are queried here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, String, Table, Text, column, table
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA, generation_columns
from pilothouse_server.store.noun_tables import NounTables

CONTAINERS = Table(
    "containers",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(253)),
    Column("display_name", String(253)),
    Column("namespace_id", BigInteger),
    Column("image_id", BigInteger),
    Column("kubernetes_name", String(253)),
    Column("pod_name", String(253)),
    Column("deployment_name", String(253)),
    Column("replica_set_name", String(253)),
    Column("status", String(20)),
    Column("phase", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("cpu_request", String(20)),
    Column("cpu_limit", String(20)),
    Column("memory_request", String(20)),
    Column("memory_limit", String(20)),
    Column("restart_count", Integer),
    Column("pod_ip", String(45)),
    Column("host_ip", String(45)),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("labels", JSONB),
    Column("annotations", JSONB),
    Column("spec", JSONB),
    Column("desired_state", String(20)),
    Column("replicas", Integer),
    Column("quota_cpu_millicores", BigInteger),
    Column("quota_memory_bytes", BigInteger),
    Column("ready_replicas", Integer),
    Column("observed_replicas", Integer),
    Column("drift_policy", String(20)),
    Column("hold_rollout", Boolean),
    Column("imported", Boolean),
    Column("restart_requested_at", DateTime(timezone=True)),
    Column("stale_since", DateTime(timezone=True)),
    Column("conditions", JSONB),
    Column("programs", JSONB),
    *generation_columns(),
    Column("revision_number", Integer),
    comment="Desired and observed state of a container; one Deployment on its cluster.",
)

PORT_MAPPINGS = Table(
    "port_mappings",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("container_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("name", String(100)),
    Column("container_port", Integer),
    Column("host_port", Integer),
    Column("protocol", String(10)),
    Column("app_protocol", String(100)),
    Column("service_type", String(20)),
    Column("service_name", String(253)),
    Column("service_port", Integer),
    Column("node_port", Integer),
    comment="Ports of a container and the Services in front of them; one port may stand behind two.",
)

ENVIRONMENT_VARIABLES = Table(
    "environment_variables",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("container_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("container_name", String(63)),
    Column("position", Integer),
    Column("name", String(253)),
    Column("value", Text),
    Column("value_from", String(50)),
    Column("source_name", String(253)),
    Column("source_key", String(253)),
    Column("optional", Boolean),
    Column("external", Boolean),
    comment="Environment of a container; values from a source are resolved by Kubernetes, never copied.",
)

CONTAINER_VOLUMES = Table(
    "container_volumes",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("container_id", BigInteger),
    Column("volume_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("mount_path", String(500)),
    Column("read_only", Boolean),
    Column("sub_path", String(500)),
    comment="Volumes mounted into containers.",
)

CONTAINER_IMAGES = Table(
    "container_images",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("name", String(255)),
    Column("tag", String(128)),
    Column("digest", String(128)),
    Column("repository", String(255)),
    Column("size_bytes", BigInteger),
    Column("architecture", String(20)),
    Column("os", String(20)),
    Column("created_at", DateTime(timezone=True)),
    Column("pulled_at", DateTime(timezone=True)),
    Column("status", String(20)),
    comment="Images that containers use or used; registered by being used.",
)

PROGRAM_IMAGES = Table(
    "program_images",
    METADATA,
    Column("container_id", BigInteger, primary_key=True),
    Column("namespace_id", BigInteger),
    Column("program", String(63), primary_key=True),
    Column("image", String(1000)),
    Column("image_id", BigInteger),
    comment="Images of sidecars and init containers; that of the main program is in the row of its container.",
)

CONTAINER_PODS = Table(
    "container_pods",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("container_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("pod_name", String(253)),
    Column("uid", String(64)),
    Column("phase", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("ready", Boolean),
    Column("pod_ip", String(45)),
    Column("host_ip", String(45)),
    Column("node_name", String(253)),
    Column("restart_count", Integer),
    Column("image", String(1000)),
    Column("image_id", String(1000)),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("deleting", Boolean),
    Column("revision", String(253)),
    Column("created_at", DateTime(timezone=True)),
    Column("programs", JSONB),
    comment="Pods of a container as last observed.",
)

STATUS_HISTORY = Table(
    "container_status_history",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("container_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("previous_status", String(20)),
    Column("current_status", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("changed_at", DateTime(timezone=True)),
    Column("triggered_by", String(50)),
    Column("user_id", BigInteger),
    Column("operation_id", UUID(as_uuid=True)),
    comment="Every change of a container's status, with who or what caused it.",
)

CONTAINER_RUNS = Table(
    "container_runs",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("container_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("number", Integer),
    Column("name", String(253)),
    Column("status", String(20)),
    Column("reason", String(100)),
    Column("message", Text),
    Column("exit_code", Integer),
    Column("start_time", DateTime(timezone=True)),
    Column("end_time", DateTime(timezone=True)),
    comment="Runs of a container as last observed; they stay when the cluster deletes their Jobs.",
)

# Owned by the noun storage; only read here.
VOLUMES = table(
    "volumes",
    column("id", BigInteger()),
    column("name", String(253)),
    column("namespace_id", BigInteger()),
    column("type", String(50)),
    column("size", String(20)),
    column("access_mode", String(20)),
    column("host_path", String(500)),
    column("source_name", String(253)),
    column("kubernetes_name", String(253)),
    column("spec", JSONB()),
    column("deletion_requested_at", DateTime(timezone=True)),
    schema="public",
)

CONTAINER_TABLES: Final = NounTables(
    tables=frozenset(
        {
            "container_images",
            "container_pods",
            "container_runs",
            "container_status_history",
            "container_volumes",
            "containers",
            "environment_variables",
            "port_mappings",
            "program_images",
        }
    )
)
