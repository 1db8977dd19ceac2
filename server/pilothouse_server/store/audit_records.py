"""The audit record, its canonical form, and its hash.

    record_hash = SHA-256(canonical JSON of the record)

The canonical form is JSON with sorted keys, no spaces, UTF-8, times in ISO 8601 with microseconds and `Z`, and no
floating-point numbers, so that any program can compute it from the stored row. The server hashes the record; the
database numbers it (`sequence_changes`), under the lock that also orders events. The hash of record n is the data of
leaf n - 1 of the tree over the log (`audit.merkle`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Literal
from uuid import UUID

import msgspec
import orjson


class AuditRecord(msgspec.Struct, kw_only=True):
    """One row of `operation_logs`, before the database numbers it.

    Bodies are already redacted.
    """

    # An id is a UUID, or already text.
    operation_id: UUID | str
    user_id: int | None = None
    username: str | None
    action: str
    resource_type: str
    resource_id: int | None = None
    resource_name: str | None = None
    namespace_id: int | None = None
    request_method: Literal["UNARY", "STREAM"] = "UNARY"
    request_path: str = ""
    request_body: Mapping[str, Any] | None = None
    request_headers: Mapping[str, Any] | None = None
    client_ip: str | None = None
    user_agent: str | None = None
    status_code: int
    response_body: Mapping[str, Any] | None = None
    duration_ms: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    started_at: datetime
    completed_at: datetime | None
    metadata: Mapping[str, Any]
    stream_id: UUID | str | None = None

    def as_row(self) -> dict[str, Any]:
        """Returns the record as values that JSON can represent, by column."""
        # Written out: there is one record for each call, and a loop over the fields takes three times as long.
        return {
            "operation_id": str(self.operation_id),
            "user_id": self.user_id,
            "username": self.username,
            "action": self.action,
            "resource_type": self.resource_type,
            "resource_id": self.resource_id,
            "resource_name": self.resource_name,
            "namespace_id": self.namespace_id,
            "request_method": self.request_method,
            "request_path": self.request_path,
            "request_body": self.request_body,
            "request_headers": self.request_headers,
            "client_ip": self.client_ip,
            "user_agent": self.user_agent,
            "status_code": self.status_code,
            "response_body": self.response_body,
            "duration_ms": self.duration_ms,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "started_at": canonical_time(self.started_at),
            "completed_at": None if self.completed_at is None else canonical_time(self.completed_at),
            "metadata": self.metadata,
            "stream_id": None if self.stream_id is None else str(self.stream_id),
        }


def canonical_time(moment: datetime) -> str:
    """Returns a time in ISO 8601 in UTC, with six digits of a second and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


# Types that both encoders write in the same way: no floating-point numbers, whose text differs, and no type that only
# orjson accepts.
_ALIKE = frozenset({str, int, bool, NoneType})


def canonical_json(row: Mapping[str, Any]) -> bytes:
    """Returns the bytes that are hashed.

    The standard library's encoder defines the form. orjson writes the same bytes ten times as fast, unless the row has
    values that it writes differently or not at all (numbers of more than 64 bits, lone surrogates).
    """
    if _is_plain(row):
        try:
            return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            pass
    return standard_json(row)


# Matches every floating-point number that orjson may have written, and also text that looks like one.
_NUMBER = re.compile(rb"(?:^|[:,\[])-?[0-9]+[.eE]")


def canonical_stored(value: Any) -> bytes:
    """Returns the same as `canonical_json`, for a value that was read from JSON.

    Such a value has only JSON's types, so its items are checked only if its bytes may contain a floating-point number.
    """
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return standard_json(value)
    return canonical_json(value) if _NUMBER.search(encoded) else encoded


def _is_plain(value: object) -> bool:
    kind = type(value)
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not (type(item) in _ALIKE or _is_plain(item)):
                return False
        return True
    return kind is list and all(type(item) in _ALIKE or _is_plain(item) for item in value)  # type: ignore[attr-defined]


def standard_json(row: object) -> bytes:
    """Returns the canonical form by the standard library.

    Raises TypeError for a value that JSON cannot represent.
    """
    return json.dumps(
        row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_refuse, allow_nan=False
    ).encode()


def _refuse(value: object) -> str:
    raise TypeError(f"an audit record cannot contain a {type(value).__name__}")


def record_hash(canonical: bytes) -> bytes:
    """Returns the SHA-256 of a record's canonical form."""
    return hashlib.sha256(canonical).digest()


def stored_row(stored: Any) -> dict[str, Any]:
    """Returns a record as it is hashed, from its row in `operation_logs`.

    The columns that number the record are left out.
    """
    return {
        "operation_id": str(stored.operation_id),
        "user_id": stored.user_id,
        "username": stored.username,
        "action": stored.action,
        "resource_type": stored.resource_type,
        "resource_id": stored.resource_id,
        "resource_name": stored.resource_name,
        "namespace_id": stored.namespace_id,
        "request_method": stored.request_method,
        "request_path": stored.request_path,
        "request_body": stored.request_body,
        "request_headers": stored.request_headers,
        "client_ip": stored.client_ip,
        "user_agent": stored.user_agent,
        "status_code": stored.status_code,
        "response_body": stored.response_body,
        "duration_ms": stored.duration_ms,
        "error_code": stored.error_code,
        "error_message": stored.error_message,
        "started_at": canonical_time(stored.started_at),
        "completed_at": None if stored.completed_at is None else canonical_time(stored.completed_at),
        "metadata": stored.metadata,
        "stream_id": None if stored.stream_id is None else str(stored.stream_id),
    }
