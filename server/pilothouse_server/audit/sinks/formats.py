"""Records in formats of other programs: OCSF and CloudEvents as JSON, RFC 5424 lines, and OTLP log records.

Each format is complete: it contains every field of a record (docs/audit-format.md).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

import orjson

from pilothouse_server.audit.sinks import ocsf
from pilothouse_server.audit.sinks.model import Format, Record

Encode = Callable[[Record], bytes]

SOURCE = "urn:pilothouse:audit"
# Log audit, with the severities informational, notice and warning.
_FACILITY = 13
_INFORMATIONAL, _NOTICE, _WARNING = 6, 5, 4
_DENIALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
_LARGEST_SEQUENCE_ID = 2147483647
# Characters that must not appear in the header of a line.
_PRINTABLE = re.compile(r"[^\x21-\x7e]")
_INFO, _WARN = 9, 13


def cloud_event(record: Record) -> bytes:
    """Returns a CloudEvent 1.0 in structured form, as JSON: its data is the record, its namespace and sequence."""
    fields = record.fields
    subject = "/".join(filter(None, (record.namespace, fields["resource_name"])))
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{record.sequence}-{fields['operation_id']}",
        "source": SOURCE,
        "type": f"pilothouse.audit.{fields['resource_type']}.{fields['action']}",
        "time": fields["started_at"],
        "datacontenttype": "application/json",
        # The CloudEvents extension `sequence` is text. It is padded, so that text comparison sorts it by number.
        "sequence": f"{record.sequence:020d}",
        "data": {
            "sequence": record.sequence,
            "namespace": record.namespace,
            "record": fields,
            "record_hash": record.record_hash.hex(),
        },
    }
    if subject:
        event["subject"] = subject
    return orjson.dumps(event)


JSON_FORMATS: Mapping[Format, Encode] = {"ocsf": ocsf.encode, "cloudevents": cloud_event}


def syslog_line(form: Format) -> Encode:
    """Returns an encoder of RFC 5424 lines whose message is the record in a JSON format."""
    encode = JSON_FORMATS[form]

    def line(record: Record) -> bytes:
        fields = record.fields
        elements = {
            "sequence": str(record.sequence),
            "operationId": fields["operation_id"],
            "user": fields["username"],
            "action": fields["action"],
            "type": fields["resource_type"],
            "namespace": record.namespace,
            "name": fields["resource_name"],
            "code": fields["error_code"] or "OK",
        }
        data = "".join(f' {name}="{_escaped(value)}"' for name, value in elements.items() if value)
        message_id = _header(fields["action"], 32)
        number = (record.sequence - 1) % _LARGEST_SEQUENCE_ID + 1
        head = (
            f"<{_FACILITY * 8 + _severity(fields['error_code'])}>1 {fields['started_at']} {_host()} pilothouse - "
            f'{message_id} [meta sequenceId="{number}"][pilothouse@32473{data}] '
        )
        return head.encode() + b"\xef\xbb\xbf" + encode(record)

    return line


def otlp_record(record: Record) -> bytes:
    """Returns a LogRecord of OTLP as JSON: its body is the record as it is hashed, its attributes are the
    fields that queries use.
    """
    fields = record.fields
    nanoseconds = str(_microseconds(fields["started_at"]) * 1000)
    code = fields["error_code"]
    attributes: dict[str, Any] = {
        "pilothouse.sequence": record.sequence,
        "pilothouse.record_hash": record.record_hash.hex(),
        "pilothouse.operation_id": fields["operation_id"],
        "pilothouse.action": fields["action"],
        "pilothouse.resource.type": fields["resource_type"],
        "pilothouse.resource.name": fields["resource_name"],
        "pilothouse.namespace": record.namespace or None,
        "enduser.id": fields["username"],
        "client.address": fields["client_ip"],
        "user_agent.original": fields["user_agent"],
        "rpc.system": "grpc",
        "rpc.method": fields["request_path"],
        "rpc.grpc.status": code or "OK",
    }
    made: dict[str, Any] = {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": _INFO if code is None else _WARN,
        "severityText": "INFO" if code is None else "WARN",
        "eventName": f"pilothouse.audit.{fields['resource_type']}.{fields['action']}",
        "body": {"stringValue": record.canonical.decode()},
        "attributes": [
            {
                "key": key,
                "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
            }
            for key, value in attributes.items()
            if value is not None
        ],
    }
    if trace := fields["metadata"].get("trace_id"):
        made["traceId"] = trace
    return orjson.dumps(made)


OTLP_HEAD = (
    b'{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pilothouse"}}]},'
    b'"scopeLogs":[{"scope":{"name":"pilothouse.audit"},"logRecords":['
)
OTLP_TAIL = b"]}]}]}"


def _severity(code: str | None) -> int:
    if code is None:
        return _INFORMATIONAL
    return _WARNING if code in _DENIALS else _NOTICE


def _escaped(value: str) -> str:
    # A receiver that counts no octets would take a line break as the end of the line.
    return re.sub(r'(["\\\]])', r"\\\1", re.sub(r"[\x00-\x1f\x7f]", " ", value))


def _header(value: str, longest: int) -> str:
    return _PRINTABLE.sub("_", value)[:longest] or "-"


@cache
def _host() -> str:
    return _header(socket.gethostname(), 255)


def _microseconds(moment: str) -> int:
    # In whole numbers, because a float cannot represent the microseconds of a date.
    parsed = datetime.fromisoformat(moment)
    return int(parsed.replace(microsecond=0).timestamp()) * 1_000_000 + parsed.microsecond
