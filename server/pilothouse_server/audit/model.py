"""What a record of the audit log is, apart from how it is stored or sent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Operation(msgspec.Struct, frozen=True):
    """One record, with the name of its namespace."""

    operation_id: str
    sequence: int
    username: str
    action: str
    resource_type: str
    resource_name: str
    namespace: str
    request_method: str
    request_path: str
    request_body: dict[str, Any] | None
    request_headers: dict[str, Any] | None
    client_ip: str
    user_agent: str
    status_code: int
    response_body: dict[str, Any] | None
    duration_ms: int | None
    error_code: str
    error_message: str
    started_at: datetime
    completed_at: datetime | None
    metadata: dict[str, Any]
    record_hash: bytes
    chain_hash: bytes


class UserOperationStats(msgspec.Struct, frozen=True):
    """What one user has done: a row of the view `user_operation_stats`."""

    username: str
    full_name: str
    total_operations: int
    successful_operations: int
    failed_operations: int
    create_operations: int
    start_operations: int
    stop_operations: int
    delete_operations: int
    first_operation_at: datetime | None
    last_operation_at: datetime | None
    avg_duration_ms: float | None
    operations_last_30_days: int
