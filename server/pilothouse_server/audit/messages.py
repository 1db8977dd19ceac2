"""Records of the audit log: value → protobuf; what differs between the two."""

from __future__ import annotations

from datetime import timedelta

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_server.audit.model import Operation, UserOperationStats
from pilothouse_server.rpc.converter import AnswerConverter, Differences


def _duration(value: Operation) -> timedelta | None:
    return _milliseconds(value.duration_ms)


def _average_duration(value: UserOperationStats) -> timedelta | None:
    return _milliseconds(value.avg_duration_ms)


def _milliseconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(microseconds=round(value * 1000))


def _record_hash(value: Operation) -> str:
    return value.record_hash.hex()


def _chain_hash(value: Operation) -> str:
    return value.chain_hash.hex()


OPERATION = AnswerConverter(
    Operation,
    pb.Operation,
    Differences(
        names={"end_time": "completed_at"},
        computed={"duration": _duration, "record_hash": _record_hash, "chain_hash": _chain_hash},
        struct_only=("duration_ms",),
        # Records hold the id of a resource, not its uid.
        message_only=("resource_uid",),
    ),
)
USER_OPERATION_STATS = AnswerConverter(
    UserOperationStats,
    pb.UserOperationStats,
    Differences(computed={"avg_duration": _average_duration}, struct_only=("avg_duration_ms",)),
)
