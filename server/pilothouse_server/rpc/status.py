"""The one place that translates a failure to its gRPC form.

The form has a code, a message, and `google.rpc.Status` with its details. Allow-list: a `PilothouseError` is reported as
it is. Everything else is INTERNAL with an identifier by which the log has the rest, because an unhandled exception may
contain SQL or a password.
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pilothouse_server.errors import PilothouseError

DOMAIN = "pilothouse"
STATUS_KEY = "grpc-status-details-bin"

CODES = {code.name: code for code in grpc.StatusCode}

# https://cloud.google.com/apis/design/errors#handling_errors: the HTTP mapping of google.rpc.Code.
HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


def rich_status(error: PilothouseError) -> status_pb2.Status:
    """Returns the status of a domain error with ErrorInfo, and BadRequest and RetryInfo where they apply."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    _attach(
        status,
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata)),
    )
    if error.violations:
        _attach(
            status,
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field,
                        description=violation.description,
                        reason=violation.rule.upper(),
                    )
                    for violation in error.violations
                ]
            ),
        )
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def internal_status(message: str, operation_id: str) -> status_pb2.Status:
    """Returns the status of an error that is not a domain error; it has only the id by which the log names it."""
    status = status_pb2.Status(code=code_pb2.INTERNAL, message=message)
    _attach(
        status,
        error_details_pb2.ErrorInfo(
            reason="INTERNAL", domain=DOMAIN, metadata={"operation_id": operation_id}
        ),
    )
    return status


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
