"""The canonical form of records, implemented again from the API's responses, by docs/audit-format.md only."""

from __future__ import annotations

import json
from typing import Any

from pilothouse.audit.v1 import audit_pb2 as pb

_JSON = {"request_body", "request_headers", "response_body", "metadata"}
_TIMES = {"started_at": "start_time", "completed_at": "end_time"}
_INTEGERS = {"user_id", "resource_id", "namespace_id", "duration_ms"}
_TEXTS = {
    "operation_id", "username", "action", "resource_type", "resource_name", "request_method", "client_ip", "user_agent",
    "error_code", "error_message", "stream_id",
}  # fmt: skip


def canonical(operation: pb.Operation) -> bytes:
    """Returns the bytes of a record that are hashed."""
    record: dict[str, Any] = {name: getattr(operation, name) or None for name in _TEXTS}
    record["request_path"] = operation.request_path if operation.request_method else None
    record["status_code"] = operation.status_code
    for name in _INTEGERS:
        record[name] = getattr(operation, name) if operation.HasField(name) else None  # type: ignore[arg-type]
    for name in _JSON:
        text = getattr(operation, f"{name}_json")
        record[name] = json.loads(text) if text else None
    for name, field in _TIMES.items():
        moment = getattr(operation, field)
        record[name] = (
            moment.ToDatetime().isoformat(timespec="microseconds") + "Z"
            if operation.HasField(field)  # type: ignore[arg-type]
            else None
        )
    return as_canonical_json(record)


def as_canonical_json(value: object) -> bytes:
    """Returns any value in the canonical form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
