"""The values of the audit log: records and statistics, independent of how they are stored or sent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _document(text: str | None) -> dict[str, Any] | None:
    return None if text is None else _decode(text)


class FieldChange(msgspec.Struct, frozen=True):
    """A field before and after an update, as canonical JSON."""

    path: str
    before: str
    after: str


class AuditOperation(msgspec.Struct, frozen=True):
    """One record, with the name of its namespace. Bodies and headers are JSON as the database writes it.

    `mark`: eight random bytes that only this record has; resume tokens contain them.
    """

    operation_id: str
    sequence: int
    username: str
    action: str
    resource_type: str
    resource_name: str
    namespace: str
    request_method: str
    request_path: str
    request_body_text: str | None
    request_headers_text: str | None
    client_ip: str
    user_agent: str
    status_code: int
    response_body_text: str | None
    duration_ms: int | None
    error_code: str
    error_message: str
    started_at: datetime
    completed_at: datetime | None
    metadata: dict[str, Any]
    record_hash: bytes
    mark: bytes
    user_id: int | None
    resource_id: int | None
    namespace_id: int | None
    stream_id: str

    @property
    def request_body(self) -> dict[str, Any] | None:
        """The request's message."""
        return _document(self.request_body_text)

    @property
    def request_headers(self) -> dict[str, Any] | None:
        """The metadata of the request."""
        return _document(self.request_headers_text)

    @property
    def response_body(self) -> dict[str, Any] | None:
        """The response's message."""
        return _document(self.response_body_text)

    @property
    def resource_uid(self) -> str:
        """The permanent identifier of the resource; '' if none was found."""
        return str(self.metadata.get("resource_uid", ""))

    @property
    def validate_only(self) -> bool:
        """Whether the call only validated, and changed nothing."""
        return self.metadata.get("validate_only") is True

    @property
    def trace_id(self) -> str:
        """The trace that the caller named; '' if the caller named none."""
        return str(self.metadata.get("trace_id", ""))

    @property
    def parent_operation_id(self) -> str:
        """The operation that this one is a part of; '' for a call."""
        return str(self.metadata.get("parent_operation_id", ""))

    @property
    def granting_role(self) -> str:
        """The role that permitted the call; '' if none was needed."""
        return str(self._grant.get("role", ""))

    @property
    def grant_id(self) -> int | None:
        """The grant that permitted the call."""
        found = self._grant.get("id")
        return found if isinstance(found, int) else None

    @property
    def _grant(self) -> dict[str, Any]:
        found = self.metadata.get("grant")
        return found if isinstance(found, dict) else {}


class UserOperationStats(msgspec.Struct, frozen=True):
    """The statistics of one user's operations: a row of the view `user_operation_stats`."""

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
