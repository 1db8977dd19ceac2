"""Sinks: value ↔ protobuf, for the fields that differ between the two."""

from __future__ import annotations

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_server.audit.sinks.model import AuditSink, SinkSecrets
from pilothouse_server.rpc.converter import Converter, Differences

AUDIT_SINK: Converter[AuditSink, pb.AuditSink] = Converter(
    AuditSink,
    pb.AuditSink,
    Differences(names={"skipped_records": "skipped"}, struct_only=("id", "attempts")),
)


def secrets(message: pb.AuditSinkCredentials) -> SinkSecrets:
    """Returns the secrets of a request."""
    return SinkSecrets(dict(message.headers), message.signing_key, message.client_key)
