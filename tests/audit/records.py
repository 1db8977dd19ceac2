"""Records as the runner reads them."""

from __future__ import annotations

import hashlib
from typing import Any

from pilothouse_server.audit.sinks.model import Record
from tests.audit.canonical import as_canonical_json

FIELDS: dict[str, Any] = {
    "operation_id": "5f0f6f57-3f0b-4b8e-8a7e-3f2a9a5d1c11",
    "user_id": 7,
    "username": "ada",
    "action": "create",
    "resource_type": "container",
    "resource_id": 9007199254740993,
    "resource_name": "web",
    "namespace_id": 2,
    "request_method": "UNARY",
    "request_path": "/pilothouse.container.v1.ContainerService/CreateContainer",
    "request_body": {"namespace": "café", "container": {"name": "web", "replicas": 3}},
    "request_headers": {"user-agent": "pilothouse"},
    "client_ip": "192.0.2.7",
    "user_agent": "pilothouse",
    "status_code": 200,
    "response_body": {"container": {"name": "web"}},
    "duration_ms": 12,
    "error_code": None,
    "error_message": None,
    "started_at": "2026-11-27T11:00:01.000001Z",
    "completed_at": "2026-11-27T11:00:01.012345Z",
    "metadata": {
        "grant": {"id": 1, "role": "admin"},
        "resource_uid": "0d1c7f3e-6d1f-4a52-9d6e-0f6b7c1d2e3f",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    },
    "stream_id": None,
}
# The record that the database itself writes if a change cannot be numbered.
_NOTHING = dict.fromkeys(FIELDS) | {
    "operation_id": FIELDS["operation_id"],
    "username": "system",
    "action": "other",
    "resource_type": "audit_log",
    "status_code": 500,
    "error_code": "INTERNAL",
    "started_at": FIELDS["started_at"],
    "metadata": {},
}


def record(sequence: int = 5, namespace: str = "café", **changes: Any) -> Record:
    """Returns a record with these changed fields."""
    fields = {**FIELDS, **changes}
    canonical = as_canonical_json(fields)
    return Record(sequence, fields, canonical, hashlib.sha256(canonical).digest(), namespace)


# One record of each form.
SAMPLES: dict[str, Record] = {
    "a change": record(),
    "a read": record(action="get", response_body=None),
    "a dry run": record(metadata={"validate_only": True}),
    "a word of no class": record(action="exec", resource_name='say "hi" [now]\\'),
    "a denial": record(error_code="PERMISSION_DENIED", error_message="no", status_code=403, response_body=None),
    "a stream that was opened": record(
        action="watch",
        request_method="STREAM",
        completed_at=None,
        duration_ms=None,
        stream_id=FIELDS["operation_id"],
        metadata={"stream_event": "opened"},
    ),
    "a log-in": record(action="login", resource_type="session", resource_name="ada", namespace=""),
    "a failed log-in": record(
        action="login", resource_type="session", resource_name="bob", user_id=None, username=None, namespace="",
        error_code="UNAUTHENTICATED", error_message="wrong", status_code=401, metadata={},
    ),
    "a log-out": record(action="logout", resource_type="session", namespace=""),
    "a refresh": record(action="refresh", resource_type="session", namespace=""),
    "a session that is revoked": record(action="revoke", resource_type="session", namespace=""),
    "a new user": record(resource_type="user", namespace=""),
    "a user without a name": record(resource_type="user", resource_name=None, namespace="", metadata={}),
    "a password": record(
        resource_type="user", action="update", request_path="/pilothouse.identity.v1.IdentityService/ChangePassword"
    ),
    "a reset": record(resource_type="user", action="reset"),
    "a user who is read": record(resource_type="user", action="get"),
    "a grant": record(
        resource_type="role_grant", action="grant", request_body={"username": "bob", "role": "viewer"}
    ),
    "a grant without a body": record(resource_type="role_grant", action="revoke", request_body=None),
    "from a socket": record(client_ip="unix", user_agent=None),
    "nothing but what must be": record(5, "", **_NOTHING),
}  # fmt: skip
