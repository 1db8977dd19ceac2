"""What a transaction's last statement writes: the database function `append_changes` and the form of its arguments."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import text

from pilothouse_server.store import audit_chain
from pilothouse_server.store.audit_chain import AuditRecord

STATEMENT = text(
    "SELECT first_revision, last_revision, first_sequence, last_sequence FROM append_changes("
    "CAST(CAST(:audit AS text) AS jsonb), CAST(CAST(:events AS text) AS jsonb), "
    "CAST(CAST(:operation AS text) AS jsonb), CAST(CAST(:idempotency AS text) AS jsonb))"
)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What answers a replay of the same `request_id`."""

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


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a commit stands: 0 where there was no event or no record."""

    first_revision: int
    last_revision: int
    first_sequence: int
    last_sequence: int


def audit_json(records: Sequence[AuditRecord]) -> str:
    """The records as `append_changes` takes them, each with its hash."""
    rows = []
    for record in records:
        row = record.as_row()
        digest = audit_chain.record_hash(row)
        rows.append({**row, "record_hash": digest.hex()})
    return orjson.dumps(rows).decode()


def idempotency_json(idempotency: Idempotency, operation_id: UUID) -> str:
    """The idempotency row as `append_changes` takes it."""
    return orjson.dumps(
        {
            "user_id": idempotency.user_id,
            "request_id": str(idempotency.request_id),
            "method": idempotency.method,
            "request_hmac": base64.b64encode(idempotency.request_hmac).decode(),
            "response": base64.b64encode(idempotency.response).decode(),
            "operation_id": str(operation_id),
            "expires_at": audit_chain.canonical_time(idempotency.expires_at),
        }
    ).decode()
