"""Records of the audit log: value → protobuf."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_server.audit.model import Operation, UserOperationStats
from pilothouse_server.rpc import wire


def operation(value: Operation) -> pb.Operation:
    """A record as protobuf."""
    return pb.Operation(
        operation_id=value.operation_id,
        sequence=value.sequence,
        username=value.username,
        action=value.action,
        resource_type=value.resource_type,
        resource_name=value.resource_name,
        namespace=value.namespace,
        request_method=value.request_method,
        request_path=value.request_path,
        request_body=_struct(value.request_body),
        request_headers=_struct(value.request_headers),
        client_ip=value.client_ip,
        user_agent=value.user_agent,
        status_code=value.status_code,
        response_body=_struct(value.response_body),
        duration=_milliseconds(value.duration_ms),
        error_code=value.error_code,
        error_message=value.error_message,
        start_time=wire.timestamp(value.started_at),
        end_time=wire.timestamp(value.completed_at),
        metadata=_struct(value.metadata),
        record_hash=value.record_hash.hex(),
        chain_hash=value.chain_hash.hex(),
    )


def user_operation_stats(value: UserOperationStats) -> pb.UserOperationStats:
    """What one user has done as protobuf."""
    return pb.UserOperationStats(
        username=value.username,
        full_name=value.full_name,
        total_operations=value.total_operations,
        successful_operations=value.successful_operations,
        failed_operations=value.failed_operations,
        create_operations=value.create_operations,
        start_operations=value.start_operations,
        stop_operations=value.stop_operations,
        delete_operations=value.delete_operations,
        first_operation_at=wire.timestamp(value.first_operation_at),
        last_operation_at=wire.timestamp(value.last_operation_at),
        avg_duration=_milliseconds(value.avg_duration_ms),
        operations_last_30_days=value.operations_last_30_days,
    )


def _struct(document: dict[str, Any] | None) -> Struct | None:
    if document is None:
        return None
    struct = Struct()
    struct.update(document)
    return struct


def _milliseconds(value: float | None) -> Duration | None:
    if value is None:
        return None
    duration = Duration()
    duration.FromMicroseconds(round(value * 1000))
    return duration
