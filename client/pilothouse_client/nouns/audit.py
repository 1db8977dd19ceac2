"""The audit log; `pilothouse.audit.v1.AuditService` documents each call and its errors."""

from __future__ import annotations

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Stream, Unary, Watch, nothing, whole
from pilothouse_client.transport import TransportT


class Audit(NounClient[TransportT]):
    """`client.audit`."""

    list_operations = Pages(
        pb.ListOperationsRequest, pb.ListOperationsResponse, lambda answer: answer.operations
    )
    get_operation = Unary(pb.GetOperationRequest, pb.GetOperationResponse, lambda answer: answer.operation)
    watch_operations = Watch(
        pb.WatchOperationsRequest, pb.WatchOperationsResponse, lambda answer: answer.operation
    )
    get_user_operation_stats = Pages(
        pb.GetUserOperationStatsRequest,
        pb.GetUserOperationStatsResponse,
        lambda answer: answer.user_operation_stats,
    )
    get_audit_head = Unary(pb.GetAuditHeadRequest, pb.GetAuditHeadResponse, lambda answer: answer.head)
    get_audit_tile = Unary(pb.GetAuditTileRequest, pb.GetAuditTileResponse, lambda answer: answer.tile)
    prove_operation = Unary(pb.ProveOperationRequest, pb.ProveOperationResponse, whole)
    prove_consistency = Unary(pb.ProveConsistencyRequest, pb.ProveConsistencyResponse, whole)
    verify_audit_log = Stream(pb.VerifyAuditLogRequest, pb.VerifyAuditLogResponse)
    export_audit_log = Stream(pb.ExportAuditLogRequest, pb.ExportAuditLogResponse)
    create_audit_sink = Unary(
        pb.CreateAuditSinkRequest, pb.CreateAuditSinkResponse, lambda answer: answer.audit_sink
    )
    list_audit_sinks = Pages(
        pb.ListAuditSinksRequest, pb.ListAuditSinksResponse, lambda answer: answer.audit_sinks
    )
    delete_audit_sink = Unary(pb.DeleteAuditSinkRequest, pb.DeleteAuditSinkResponse, nothing)
