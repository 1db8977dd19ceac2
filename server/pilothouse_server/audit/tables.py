"""The audit log and its view: the columns that are queried here."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA

OPERATION_LOGS = Table(
    "operation_logs",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("operation_id", UUID(as_uuid=True)),
    Column("user_id", BigInteger),
    Column("username", String(50)),
    Column("action", String(50)),
    Column("resource_type", String(50)),
    Column("resource_id", BigInteger),
    Column("resource_name", String(253)),
    Column("namespace_id", BigInteger),
    Column("request_method", String(10)),
    Column("request_path", String(500)),
    Column("request_body", JSONB),
    Column("request_headers", JSONB),
    Column("client_ip", String(45)),
    Column("user_agent", Text),
    Column("status_code", Integer),
    Column("response_body", JSONB),
    Column("duration_ms", Integer),
    Column("error_code", String(50)),
    Column("error_message", Text),
    Column("started_at", DateTime(timezone=True), primary_key=True),
    Column("completed_at", DateTime(timezone=True)),
    Column("metadata", JSONB),
    Column("stream_id", UUID(as_uuid=True)),
    Column("sequence", BigInteger),
    Column("record_hash", LargeBinary),
    Column("mark", LargeBinary),
    comment="Audit log: every call of every service, in commit order.",
)

USER_OPERATION_STATS = Table(
    "user_operation_stats",
    METADATA,
    Column("user_id", BigInteger),
    Column("username", String(50)),
    Column("full_name", String(100)),
    Column("total_operations", BigInteger),
    Column("successful_operations", BigInteger),
    Column("failed_operations", BigInteger),
    Column("create_operations", BigInteger),
    Column("start_operations", BigInteger),
    Column("stop_operations", BigInteger),
    Column("delete_operations", BigInteger),
    Column("first_operation_at", DateTime(timezone=True)),
    Column("last_operation_at", DateTime(timezone=True)),
    Column("avg_duration_ms", Numeric),
    Column("operations_last_30_days", BigInteger),
    comment="A view: what each user has done, from the records that the caller may see.",
    info={"is_view": True},
)
