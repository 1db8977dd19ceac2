"""Each format follows its specification, and contains the whole record."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from pilothouse_server.audit.sinks import formats, ocsf
from pilothouse_server.audit.sinks.model import Record
from tests.audit.canonical import as_canonical_json
from tests.audit.records import FIELDS, SAMPLES, record

SCHEMA = json.loads((Path(__file__).parent / "ocsf-1.9.0-dev.json").read_text())
_CLASSES = {
    6003: "api_activity",
    3002: "authentication",
    3001: "account_change",
    3005: "user_access",
}
each_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


def faults(event: dict[str, Any]) -> list[str]:
    """Returns the faults that OCSF's schema finds in an event."""
    schema = {**SCHEMA["classes"][_CLASSES[event["class_uid"]]], "$defs": SCHEMA["$defs"]}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(event)]


def put_together(event: dict[str, Any]) -> dict[str, Any]:
    """Rebuilds the record from its OCSF event: the unmapped fields, and the rest from their places."""
    user = event["actor"].get("user", {})
    endpoint = event["src_endpoint"]
    found = {
        "operation_id": event["metadata"]["uid"],
        "user_id": int(user["uid"]) if "uid" in user else None,
        "username": user.get("name"),
        "request_path": event["api"]["operation"] or None,
        "client_ip": endpoint.get("ip") or (None if endpoint["name"] == "unknown" else endpoint["name"]),
        "user_agent": event.get("http_request", {}).get("user_agent"),
        "duration_ms": event.get("duration"),
        "error_code": None if event["status_code"] == "OK" else event["status_code"],
        "error_message": event.get("status_detail"),
        **event["unmapped"],
    }
    if "resource_name" not in found:
        named = event["user"] if event["class_uid"] == 3001 else next(iter(event.get("resources", [])), {})
        found["resource_name"] = named.get("name")
    return found


@each_sample
def test_ocsf_events_follow_their_schema_and_are_complete(sample: Record) -> None:
    event = json.loads(ocsf.encode(sample))
    assert faults(event) == []
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    canonical = as_canonical_json(put_together(event))
    assert canonical == sample.canonical
    assert hashlib.sha256(canonical).hexdigest() == event["raw_data_hash"]["value"]


def test_an_event_that_violates_the_schema_is_detected() -> None:
    event = ocsf.event(record())
    assert faults({**event, "status_id": 17}) != []
    assert faults({**event, "invented": 1}) != []
    event.pop("actor")
    assert faults(event) != []


def test_ocsf_classes_match_the_recorded_actions() -> None:
    found = {name: ocsf.event(sample)["type_uid"] for name, sample in SAMPLES.items()}
    assert found["a change"] == 600301
    assert found["a read"] == found["a user who is read"] == 600302
    assert found["a word of no class"] == 600399
    assert found["a log-in"] == found["a failed log-in"] == 300201
    assert found["a log-out"] == 300202
    assert found["a session that is revoked"] == 600304
    assert found["a new user"] == 300101
    assert found["a password"] == 300103
    assert found["a reset"] == 300104
    assert found["a grant"] == 300501
    assert found["a grant without a body"] == 300502
    denied = ocsf.event(SAMPLES["a denial"])
    assert (denied["status_id"], denied["status_code"], denied["severity_id"]) == (2, "PERMISSION_DENIED", 3)


@each_sample
def test_cloud_events_are_complete(sample: Record) -> None:
    event = json.loads(formats.cloud_event(sample))
    assert event["specversion"] == "1.0"
    assert all(isinstance(event[name], str) and event[name] for name in ("id", "source", "type", "time"))
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in event)
    assert event.get("subject") != ""
    assert as_canonical_json(event["data"]["record"]) == sample.canonical
    assert event["data"]["record_hash"] == sample.record_hash.hex()


_LINE = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) pilothouse - (?P<id>[!-~]{1,32}) "
    rb'(?P<data>(?:\[[!-~]{1,32}(?: [!-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*\])+) \xef\xbb\xbf(?P<message>.*)'
)


@each_sample
def test_syslog_lines_follow_rfc_5424(sample: Record) -> None:
    line = formats.syslog_line("ocsf")(sample)
    found = _LINE.fullmatch(line)
    assert found is not None, line
    assert int(found["priority"]) >> 3 == 13
    assert datetime.fromisoformat(found["time"].decode()) == datetime.fromisoformat(
        sample.fields["started_at"]
    )
    assert found["message"] == ocsf.encode(sample)
    assert f'sequence="{sample.sequence}"'.encode() in found["data"]


def test_a_syslog_line_escapes_special_characters() -> None:
    line = formats.syslog_line("cloudevents")(record(resource_name='a"b]c\\d\ne'))
    assert rb'name="a\"b\]c\\d e"' in line


@each_sample
def test_otlp_records_are_complete(sample: Record) -> None:
    made = json.loads(formats.otlp_record(sample))
    assert made["body"]["stringValue"].encode() == sample.canonical
    assert made["timeUnixNano"] == "1795777201000001000"
    values = {each["key"]: each["value"] for each in made["attributes"]}
    assert values["pilothouse.sequence"] == {"intValue": str(sample.sequence)}
    assert all(list(value) in (["intValue"], ["stringValue"]) for value in values.values())
    trace = sample.fields["metadata"].get("trace_id")
    assert made.get("traceId") == trace
    whole = json.loads(formats.OTLP_HEAD + b"{}" + formats.OTLP_TAIL)
    assert whole["resourceLogs"][0]["scopeLogs"][0]["logRecords"] == [{}]


def test_the_samples_have_every_field() -> None:
    assert all(set(sample.fields) == set(FIELDS) for sample in SAMPLES.values())
