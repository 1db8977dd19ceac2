"""Records of the audit log: value → protobuf, for the fields that differ between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_server.audit.exporting import Exported
from pilothouse_server.audit.model import AuditOperation, FieldChange, UserOperationStats
from pilothouse_server.audit.proofs import Head
from pilothouse_server.audit.verification import Fault, VerificationReport
from pilothouse_server.rpc.converter import AnswerConverter, Differences
from pilothouse_server.store import audit_records


def _duration(value: AuditOperation) -> timedelta | None:
    return _milliseconds(value.duration_ms)


def _average_duration(value: UserOperationStats) -> timedelta | None:
    return _milliseconds(value.avg_duration_ms)


def _milliseconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(microseconds=round(value * 1000))


def _json(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else audit_records.canonical_stored(value).decode()


def _request_body(value: AuditOperation) -> str:
    return _json(value.request_body)


def _request_headers(value: AuditOperation) -> str:
    return _json(value.request_headers)


def _response_body(value: AuditOperation) -> str:
    return _json(value.response_body)


def _metadata(value: AuditOperation) -> str:
    return _json(value.metadata)


def _changes(value: AuditOperation) -> tuple[FieldChange, ...]:
    found = value.metadata.get("changes")
    if not isinstance(found, dict):
        return ()
    return tuple(
        FieldChange(path, _of_change(change, "from"), _of_change(change, "to"))
        for path, change in sorted(found.items())
    )


def _of_change(change: Any, side: str) -> str:
    """Returns one side of a change, or the replacement text if the change was too long for the record."""
    value = change.get(side) if isinstance(change, dict) else change
    return audit_records.standard_json(value).decode()


def _record_hash(value: AuditOperation) -> str:
    return value.record_hash.hex()


OPERATION = AnswerConverter(
    AuditOperation,
    pb.Operation,
    Differences(
        names={"end_time": "completed_at"},
        struct_only=("mark", "request_body_text", "request_headers_text", "response_body_text"),
        computed={
            "duration": _duration,
            "record_hash": _record_hash,
            "request_body_json": _request_body,
            "request_headers_json": _request_headers,
            "response_body_json": _response_body,
            "metadata_json": _metadata,
            "changes": _changes,
        },
    ),
)
USER_OPERATION_STATS = AnswerConverter(
    UserOperationStats,
    pb.UserOperationStats,
    Differences(computed={"avg_duration": _average_duration}, struct_only=("avg_duration_ms",)),
)


AUDIT_HEAD = AnswerConverter(Head, pb.AuditHead)
_FAULTS = {fault: pb.AuditFault.Value(f"AUDIT_FAULT_{fault.name}") for fault in Fault}


def exported(found: Sequence[Exported]) -> pb.ExportAuditLogResponse:
    """Returns one response of an export."""
    return pb.ExportAuditLogResponse(
        records=[
            pb.ExportedRecord(
                sequence=each.sequence,
                record=each.record.decode(),
                proof=each.proof,
            )
            for each in found
        ]
    )


def verification(
    report: VerificationReport, head: Head | None, *, complete: bool = False
) -> pb.VerifyAuditLogResponse:
    """Returns the progress of a verification; with its head once it is done."""
    answer = pb.VerifyAuditLogResponse(verified_records=report.verified, total_records=report.total)
    if not report.done:
        return answer
    answer.done = True
    answer.intact = not report.findings
    answer.dropped_records = report.dropped
    answer.former_heads = report.former_heads
    answer.complete = complete
    answer.findings.extend(
        pb.AuditFinding(
            fault=_FAULTS[each.fault],
            first_sequence=each.first,
            last_sequence=each.last,
            description=each.description,
        )
        for each in sorted(report.findings, key=lambda each: (each.first, each.last))
    )
    if head is not None:
        answer.head.CopyFrom(AUDIT_HEAD.to_proto(head))
    return answer
