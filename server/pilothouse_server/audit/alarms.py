"""Alarms about the audit log itself: a record in the log that names the fault, and the metric of faults."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from prometheus_client import Counter

from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.unit_of_work import Store

FAULTS = Counter(
    "pilothouse_audit_log_faults_total",
    "Faults found in the audit log: missing records, other heads.",
    ("kind",),
)


def alarm(message: str, metadata: Mapping[str, Any]) -> AuditRecord:
    """Returns the record of an alarm (`action = "verify" AND error_code = "DATA_LOSS"`)."""
    now = datetime.now(UTC)
    return AuditRecord(
        operation_id=uuid4(),
        username="system",
        action="verify",
        resource_type="audit_log",
        status_code=500,
        error_code="DATA_LOSS",
        error_message=message,
        started_at=now,
        completed_at=now,
        metadata=metadata,
    )


async def raise_alarm(store: Store, message: str, metadata: Mapping[str, Any]) -> None:
    """Writes the record of an alarm. Raises Unavailable."""
    async with store.system_write() as transaction:
        transaction.records.append(alarm(message, metadata))
