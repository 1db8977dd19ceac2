"""Records as events of the Open Cybersecurity Schema Framework, one JSON object each.

Log-ins are Authentication (3002), changes of users Account Change (3001), grants User Access Management
(3005), and everything else API Activity (6003). A field of a record is stored in the equivalent field of the class if
that loses nothing. All other fields are stored unchanged under `unmapped`, and the schema's own fields (`time` in
milliseconds, `status_id` …) are derived from them. `raw_data_hash` is the record's hash, so the record can be
reconstructed from the event and checked against it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson

from pilothouse_server.audit.sinks.model import Record

VERSION = "1.9.0-dev"
_SHA256 = 3
_UNKNOWN, _OTHER = 0, 99
_SUCCESS, _FAILURE = 1, 2
_INFORMATIONAL, _LOW, _MEDIUM = 1, 2, 3
_DENIALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
_API_ACTIVITIES = {
    1: ("Create", frozenset({"create", "register", "import", "record"})),
    2: (
        "Read",
        frozenset({
            "get", "list", "watch", "query", "logs", "reveal", "check", "explain", "export", "verify", "stream",
            "observe",
        }),
    ),
    3: (
        "Update",
        frozenset({
            "update", "start", "stop", "pause", "resume", "restart", "run", "attach", "detach", "rotate", "reset",
            "grant",
        }),
    ),
    4: ("Delete", frozenset({"delete", "deregister", "revoke"})),
}  # fmt: skip
_API_ACTIVITY_OF = {
    action: (activity, name) for activity, (name, actions) in _API_ACTIVITIES.items() for action in actions
}
_LOG_IN = {"login": (1, "Logon"), "logout": (2, "Logoff")}
_OF_ACCOUNT = {"create": (1, "Create"), "reset": (4, "Password Reset"), "delete": (6, "Delete")}
_OF_ACCESS = {"grant": (1, "Assign Privileges"), "revoke": (2, "Revoke Privileges")}
# Fields that have an equivalent in every class; `unmapped` has the others.
_PLACED = frozenset({
    "operation_id", "user_id", "username", "request_path", "client_ip", "user_agent", "duration_ms", "error_code",
    "error_message",
})  # fmt: skip


def encode(record: Record) -> bytes:
    """Returns the event as JSON, without a line break."""
    return orjson.dumps(event(record))


def event(record: Record) -> dict[str, Any]:
    """Returns the event of a record."""
    fields = record.fields
    class_uid, class_name, activity, own, placed = _class_of(record)
    activity_id, activity_name = activity
    code = fields["error_code"]
    started = _milliseconds(fields["started_at"])
    made: dict[str, Any] = {
        "class_uid": class_uid,
        "class_name": class_name,
        "category_uid": class_uid // 1000,
        "category_name": "Application Activity"
        if class_uid == _API_ACTIVITY
        else "Identity & Access Management",
        "activity_id": activity_id,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity_id,
        "type_name": f"{class_name}: {activity_name}",
        "time": started,
        "start_time": started,
        "severity_id": _severity(code),
        "status_id": _status(record),
        "status_code": code or "OK",
        "message": _sentence(record),
        "metadata": _metadata(record),
        "api": {"operation": fields["request_path"] or "", "service": {"name": "pilothouse"}},
        "src_endpoint": _endpoint(fields["client_ip"]),
        "actor": _actor(record),
        "raw_data_hash": {"algorithm_id": _SHA256, "algorithm": "SHA-256", "value": record.record_hash.hex()},
        **own,
        "unmapped": {
            name: value for name, value in fields.items() if name not in _PLACED and name not in placed
        },
    }
    if fields["completed_at"] is not None:
        made["end_time"] = _milliseconds(fields["completed_at"])
    if fields["duration_ms"] is not None:
        made["duration"] = fields["duration_ms"]
    if fields["error_message"] is not None:
        made["status_detail"] = fields["error_message"]
    if fields["user_agent"] is not None:
        made["http_request"] = {"user_agent": fields["user_agent"]}
    if grant := _grant(fields):
        made["authorizations"] = [{"decision": "allowed", "policy": grant}]
    return made


_API_ACTIVITY, _AUTHENTICATION, _ACCOUNT_CHANGE, _USER_ACCESS = 6003, 3002, 3001, 3005
_Class = tuple[int, str, tuple[int, str], dict[str, Any], frozenset[str]]
_NAME = frozenset({"resource_name"})


def _class_of(record: Record) -> _Class:
    """Returns the class, its name, the activity, the fields that only this class has, and the record's fields
    that they replace.
    """
    fields = record.fields
    kind, action = fields["resource_type"], fields["action"]
    make = _CLASSES.get(kind) if action not in _READS else None
    if make is not None and (found := make(record, action)) is not None:
        return found
    resource = _named(
        {"type": kind, "namespace": record.namespace or None},
        name=fields["resource_name"],
        uid=fields["metadata"].get("resource_uid"),
    )
    activity = _API_ACTIVITY_OF.get(action, (_OTHER, action.capitalize()))
    own = {"resources": [resource]} if resource is not None else {}
    return _API_ACTIVITY, "API Activity", activity, own, _NAME


_READS = _API_ACTIVITIES[2][1]


def _authentication(record: Record, action: str) -> _Class | None:
    if action not in ("login", "logout", "refresh", "authenticate"):
        return None
    activity = _LOG_IN.get(action, (_OTHER, action.capitalize()))
    name = record.fields["username"] or record.fields["resource_name"] or "unknown"
    own = {"user": {"name": name}, "service": {"name": "pilothouse"}, "is_remote": True}
    return _AUTHENTICATION, "Authentication", activity, own, frozenset()


def _account_change(record: Record, action: str) -> _Class:
    fields = record.fields
    activity = _OF_ACCOUNT.get(action, (_OTHER, action.capitalize()))
    if (fields["request_path"] or "").endswith("/ChangePassword"):
        activity = 3, "Password Change"
    user = _named({}, name=fields["resource_name"], uid=fields["metadata"].get("resource_uid"))
    placed = _NAME if user is not None else frozenset()
    return _ACCOUNT_CHANGE, "Account Change", activity, {"user": user or {"name": "unknown"}}, placed


def _user_access(record: Record, action: str) -> _Class:
    fields = record.fields
    activity = _OF_ACCESS.get(action, (_OTHER, action.capitalize()))
    body = fields["request_body"] or {}
    own: dict[str, Any] = {"user": {"name": str(body.get("username") or "unknown")}}
    if isinstance(role := body.get("role"), str):
        own["privileges"] = [role]
    return _USER_ACCESS, "User Access Management", activity, own, frozenset()


_CLASSES: Mapping[str, Callable[[Record, str], _Class | None]] = {
    "session": _authentication,
    "user": _account_change,
    "role_grant": _user_access,
}


def _named(more: Mapping[str, Any], *, name: str | None, uid: Any) -> dict[str, Any] | None:
    """Returns an object of the schema that must have a name or an identifier; None if the record has neither."""
    if name is None and not uid:
        return None
    given = {"name": name, "uid": uid or None, **more}
    return {key: value for key, value in given.items() if value is not None}


def _actor(record: Record) -> dict[str, Any]:
    username, user_id = record.fields["username"], record.fields["user_id"]
    if username is None and user_id is None:
        return {"app_name": record.fields["user_agent"] or "unknown"}
    given = {"name": username, "uid": None if user_id is None else str(user_id)}
    return {"user": {key: value for key, value in given.items() if value is not None}}


def _endpoint(client_ip: str | None) -> dict[str, str]:
    if client_ip is None:
        return {"name": "unknown"}
    try:
        ipaddress.ip_address(client_ip)
    except ValueError:
        return {"name": client_ip}
    return {"ip": client_ip}


def _metadata(record: Record) -> dict[str, Any]:
    fields = record.fields
    made = {
        "version": VERSION,
        "product": {"name": "Pilothouse", "vendor_name": "Pilothouse"},
        "uid": fields["operation_id"],
        "sequence": record.sequence,
        "log_name": "audit",
        "event_code": f"{fields['resource_type']}.{fields['action']}",
    }
    correlation = fields["metadata"].get("trace_id") or fields["stream_id"]
    return {**made, "correlation_uid": correlation} if correlation else made


def _grant(fields: Mapping[str, Any]) -> dict[str, str] | None:
    grant = fields["metadata"].get("grant")
    if not isinstance(grant, Mapping):
        return None
    return {"name": str(grant.get("role", "")), "uid": str(grant.get("id", "")), "type": "role grant"}


def _severity(code: str | None) -> int:
    if code is None:
        return _INFORMATIONAL
    return _MEDIUM if code in _DENIALS else _LOW


def _status(record: Record) -> int:
    """Returns the outcome; a stream that was opened has none yet."""
    if record.fields["error_code"] is not None:
        return _FAILURE
    return _UNKNOWN if record.fields["completed_at"] is None else _SUCCESS


def _sentence(record: Record) -> str:
    fields = record.fields
    what = " ".join(filter(None, (fields["action"], fields["resource_type"], fields["resource_name"])))
    where = f" in {record.namespace}" if record.namespace else ""
    tried = " (dry run)" if fields["metadata"].get("validate_only") is True else ""
    return f"{fields['username'] or 'somebody'}: {what}{where}{tried}: {fields['error_code'] or 'OK'}"


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
