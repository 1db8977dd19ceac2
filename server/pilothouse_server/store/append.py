"""The last statement of a transaction: `put_changes`, and its arguments."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from pilothouse_server.store import audit_records
from pilothouse_server.store.audit_records import AuditRecord

STATEMENT = text(
    "SELECT put_changes(CAST(CAST(:audit AS text) AS jsonb), CAST(:hashes AS bytea[]), "
    "CAST(CAST(:events AS text) AS jsonb), CAST(:messages AS bytea[]), "
    "CAST(CAST(:operation AS text) AS jsonb), CAST(CAST(:idempotency AS text) AS jsonb))"
)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The row with the response that a replay of the same `request_id` gets."""

    user_id: int
    request_id: UUID
    method: str
    request_hmac: bytes
    response: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Operation:
    """The row of `operations` of a mutation."""

    operation_id: UUID
    user_id: int | None
    method: str
    resource_type: str
    resource_id: int | None
    namespace_id: int | None
    request_id: UUID | None


def audit_row(record: AuditRecord) -> bytes:
    """Returns the record as `put_changes` takes it: as JSON, in the hashed bytes."""
    return audit_records.canonical_json(record.as_row())


def parameters(
    audit: Sequence[bytes],
    events: Sequence[Mapping[str, Any]],
    messages: Sequence[bytes],
    operation: Operation | None,
    idempotency: Idempotency | None,
    operation_id: UUID,
) -> dict[str, Any]:
    """Returns the parameters of `STATEMENT`.

    Other statements that call `put_changes` use the same names. `audit` contains the rows of records (`audit_row`).
    """
    return {
        "audit": (b"[" + b",".join(audit) + b"]").decode(),
        "hashes": [audit_records.record_hash(row) for row in audit],
        "events": orjson.dumps(events).decode(),
        "messages": messages,
        "operation": None if operation is None else orjson.dumps(operation).decode(),
        "idempotency": None if idempotency is None else idempotency_json(idempotency, operation_id),
    }


def idempotency_json(idempotency: Idempotency, operation_id: UUID) -> str:
    """Returns the idempotency row as `put_changes` takes it."""
    return orjson.dumps(
        {
            "user_id": idempotency.user_id,
            "request_id": str(idempotency.request_id),
            "method": idempotency.method,
            "request_hmac": base64.b64encode(idempotency.request_hmac).decode(),
            "response": base64.b64encode(idempotency.response).decode(),
            "operation_id": str(operation_id),
            "expires_at": audit_records.canonical_time(idempotency.expires_at),
        }
    ).decode()
