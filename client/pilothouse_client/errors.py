"""Errors of the server, decoded into one closed hierarchy.

    PilothouseError
    ├── InvalidArgumentError     INVALID_ARGUMENT     correct the fields in `violations`
    ├── UnauthenticatedError     UNAUTHENTICATED      log in again
    ├── PermissionDeniedError    PERMISSION_DENIED    ask for the permission that the message names
    ├── NotFoundError            NOT_FOUND            also for a resource that the caller may not see
    ├── AlreadyExistsError       ALREADY_EXISTS       choose another name
    ├── FailedPreconditionError  FAILED_PRECONDITION  change the state first; `metadata` names the current one
    ├── AbortedError             ABORTED              read again, then repeat with the new etag
    ├── OutOfRangeError          OUT_OF_RANGE         a watch token is too old: start a new watch
    ├── ResourceExhaustedError   RESOURCE_EXHAUSTED   quota, rate or slow reader; `retry_delay` if waiting helps
    ├── UnavailableError         UNAVAILABLE          database, cluster or server down: try again later
    ├── DeadlineExceededError    DEADLINE_EXCEEDED    the outcome is unknown; repeat with the same request_id
    ├── CancelledError           CANCELLED            cancelled by the caller, or by a server that shuts down
    └── InternalError            every other code     a fault; report `operation_id`

The server sends `google.rpc.Status` in the trailing metadata: ErrorInfo carries the reason and its values,
BadRequest the fields, RetryInfo the wait. A code without details comes from gRPC itself (no connection, a
proxy): then `reason` is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

STATUS_METADATA_KEY = "grpc-status-details-bin"
OPERATION_METADATA_KEY = "pilothouse-operation-id"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that breaks a rule.

    It has the field's path, such as `container.image`, a description of the rule, and the rule's name.

    >>> try:
    ...     client.containers.create(container=Container(namespace=namespace, name="No Name", image="nginx"))
    ... except InvalidArgumentError as error:
    ...     print(*(each.field for each in error.violations))
    container.name
    """

    field: str
    description: str
    reason: str = ""


class PilothouseError(Exception):
    """A call that failed.

    `code` is the gRPC code, `message` names the remedy, `reason` is the UPPER_SNAKE word programs compare, `metadata`
    its values, `violations` the fields at fault, `retry_delay` the seconds the server asks to wait (None if it does
    not), `operation_id` the audit record of the call (empty if it never reached the server). `connection_problem` is
    the UPPER_SNAKE word for a failed handshake between client and server, such as TLS_REQUIRED or CERTIFICATE_CHANGED
    (`pilothouse_client.handshake`); empty otherwise.

    The client repeats a failed call while that may help; two attributes describe all its attempts. `never_sent` is
    True only if it is certain that no attempt reached the server: any call can then be repeated safely. `request_id`
    is the id that a mutation was sent with (empty for any other call). The server executes calls with the same id at
    most once, and returns the first response to the later ones.

    >>> try:
    ...     client.containers.get(namespace=namespace, name="nobody")
    ... except PilothouseError as error:
    ...     print(error.code.name, error.reason)
    NOT_FOUND CONTAINER_NOT_FOUND
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_delay: float | None = None,
        operation_id: str = "",
        never_sent: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        self.retry_delay = retry_delay
        self.operation_id = operation_id
        self.never_sent = never_sent
        self.connection_problem = ""
        self.request_id = ""

    def __str__(self) -> str:
        label = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        headline, fields = self.message_and_violations
        return f"{label}: " + "; ".join(
            [*([headline] if headline else []), *(f"{each.field}: {each.description}" for each in fields)]
        )

    @property
    def message_and_violations(self) -> tuple[str, tuple[FieldViolation, ...]]:
        """The message, and the violations that it does not name.

        The server's message names the first violation and the number of violations, and a cluster's message contains
        the rules that it names. Next to the violations, such a message would repeat them. So violations that the
        message contains are left out, and a message that summarizes several violations is replaced by them: it is
        then returned empty.
        """
        if not self.violations:
            return self.message, ()
        first = self.violations[0]
        if self.message.startswith(f"{first.field}: {first.description}"):
            return (self.message, ()) if len(self.violations) == 1 else ("", self.violations)
        return self.message, tuple(each for each in self.violations if each.description not in self.message)

    @property
    def from_server(self) -> bool:
        """Whether the server itself returned the error.

        Otherwise gRPC or a proxy made it, and the server may never have received the call."""
        return bool(self.reason)


class InvalidArgumentError(PilothouseError):
    """INVALID_ARGUMENT.

    >>> client.containers.create(container=Container(namespace=namespace, name="No Name", image="nginx"))
    Traceback (most recent call last):
    pilothouse_client.errors.InvalidArgumentError: INVALID_ARGUMENT...
    """


class UnauthenticatedError(PilothouseError):
    """UNAUTHENTICATED.

    >>> with Client(address, token="phk_unknown") as unknown:
    ...     unknown.containers.get(namespace=namespace, name="web")
    Traceback (most recent call last):
    pilothouse_client.errors.UnauthenticatedError: UNAUTHENTICATED...
    """


class PermissionDeniedError(PilothouseError):
    """PERMISSION_DENIED.

    >>> only_reading = client.identity.create_api_key(name="report", read_only=True).key
    >>> with Client(address, token=only_reading) as reader:
    ...     reader.containers.create(container=Container(namespace=namespace, name="web", image="nginx"))
    Traceback (most recent call last):
    pilothouse_client.errors.PermissionDeniedError: PERMISSION_DENIED...
    """


class NotFoundError(PilothouseError):
    """NOT_FOUND.

    >>> client.containers.get(namespace=namespace, name="nobody")
    Traceback (most recent call last):
    pilothouse_client.errors.NotFoundError: NOT_FOUND (CONTAINER_NOT_FOUND)...
    """


class AlreadyExistsError(PilothouseError):
    """ALREADY_EXISTS.

    >>> client.namespaces.create(namespace=Namespace(name=namespace))
    Traceback (most recent call last):
    pilothouse_client.errors.AlreadyExistsError: ALREADY_EXISTS...
    """


class FailedPreconditionError(PilothouseError):
    """FAILED_PRECONDITION.

    >>> web = client.containers.create(container=Container(namespace=namespace, name="web", image="nginx"))
    >>> client.namespaces.delete(name=namespace)
    Traceback (most recent call last):
    pilothouse_client.errors.FailedPreconditionError: FAILED_PRECONDITION...
    """


class AbortedError(PilothouseError):
    """ABORTED.

    >>> web = client.containers.create(container=Container(namespace=namespace, name="web", image="nginx"))
    >>> web.image = "nginx:1.27"
    >>> changed = client.containers.update(container=web, update_mask=FieldMask(paths=["image"]))
    >>> client.containers.update(container=web, update_mask=FieldMask(paths=["image"]))
    Traceback (most recent call last):
    pilothouse_client.errors.AbortedError: ABORTED...
    """


class OutOfRangeError(PilothouseError):
    """OUT_OF_RANGE. The client restarts its watches by itself, with `ChangeKind.RESTARTED`.

    >>> raise error_of(grpc.StatusCode.OUT_OF_RANGE, "the token is older than the stored events")
    Traceback (most recent call last):
    pilothouse_client.errors.OutOfRangeError: OUT_OF_RANGE...
    """


class ResourceExhaustedError(PilothouseError):
    """RESOURCE_EXHAUSTED.

    >>> small = Namespace(name=f"{namespace}-small", resource_quota=ResourceQuota(containers=1))
    >>> small = client.namespaces.create(namespace=small)
    >>> for name in ("first", "second"):
    ...     made = client.containers.create(
    ...         container=Container(namespace=small.name, name=name, image="nginx")
    ...     )
    Traceback (most recent call last):
    pilothouse_client.errors.ResourceExhaustedError: RESOURCE_EXHAUSTED...
    """


class UnavailableError(PilothouseError):
    """UNAVAILABLE.

    >>> with Client("127.0.0.1:1", token="phk_any", retry=RetryPolicy(attempts=1)) as away:
    ...     away.containers.get(namespace="shop", name="web")
    Traceback (most recent call last):
    pilothouse_client.errors.UnavailableError: UNAVAILABLE...
    """


class DeadlineExceededError(PilothouseError):
    """DEADLINE_EXCEEDED.

    >>> client.with_options(timeout=1e-6).containers.get(namespace=namespace, name="web")
    Traceback (most recent call last):
    pilothouse_client.errors.DeadlineExceededError: DEADLINE_EXCEEDED...
    """


class CancelledError(PilothouseError):
    """CANCELLED. `by_peer` is False if the caller has cancelled the call or closed the client.

    >>> with Client(address, username="admin", password=password) as short:
    ...     changes = short.containers.watch(namespace=namespace)
    >>> next(changes)
    Traceback (most recent call last):
    pilothouse_client.errors.CancelledError: CANCELLED...
    """

    by_peer: bool = False


class InternalError(PilothouseError):
    """UNKNOWN, INTERNAL, DATA_LOSS, UNIMPLEMENTED.

    >>> raise error_of(grpc.StatusCode.DATA_LOSS, "a fault: report the operation")
    Traceback (most recent call last):
    pilothouse_client.errors.InternalError: DATA_LOSS...
    """


_CLASS_OF_CODE: Mapping[grpc.StatusCode, type[PilothouseError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CancelledError,
}


def error_of(code: grpc.StatusCode, message: str, **details: Any) -> PilothouseError:
    """Returns an error of the class for `code`; `details` are keyword arguments of PilothouseError."""
    return _CLASS_OF_CODE.get(code, InternalError)(code, message, **details)


class FailedCall(Protocol):
    """The attributes that `grpc.Call` and `grpc.aio.AioRpcError` share."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Any: ...


def from_failed_call(call: FailedCall, address: str) -> PilothouseError:
    """Returns the error of a failed call to the server at `address`.

    Details that cannot be decoded are left out; the error keeps its code and message."""
    details: dict[str, Any] = {}
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_METADATA_KEY:
            details |= _decode_status(value)
        elif key == OPERATION_METADATA_KEY:
            details["operation_id"] = value if isinstance(value, str) else value.decode("ascii", "replace")
    message = call.details() or ""
    if call.code() is grpc.StatusCode.UNAVAILABLE and "reason" not in details:
        unanswered = _unanswered(message, address)
        if unanswered:
            return error_of(call.code(), unanswered, **details, never_sent=True)
    # gRPC has several texts for an expired deadline, such as "Stream removed (Deadline Exceeded)".
    if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED and "Deadline Exceeded" in message:
        message = "the deadline of the call has passed"
    error = error_of(call.code(), message, **details)
    if isinstance(error, CancelledError):
        error.by_peer = True
    return error


# The texts of gRPC for one server, and for several.
_NO_CONNECTION = ("failed to connect to all addresses", "connections to all backends failing")


def _unanswered(words: str, address: str) -> str:
    """Returns the message if no connection could be made, empty if one was made.

    Only gRPC's text distinguishes the two cases. If a server listens there, `handshake.find_problem` finds the cause.
    """
    if words.startswith(("DNS resolution failed", "errors resolving ")):
        return f"no server responds at {address}: the name cannot be resolved"
    return f"no server responds at {address}" if any(none in words for none in _NO_CONNECTION) else ""


def _decode_status(value: bytes) -> dict[str, Any]:
    # Only a failed call needs these modules, and importing them takes as long as a call.
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    details: dict[str, Any] = {}
    try:
        for packed in status_pb2.Status.FromString(value).details:
            if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(packed.value)
                details |= {"reason": info.reason, "metadata": dict(info.metadata)}
            elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad_request = error_details_pb2.BadRequest.FromString(packed.value)
                details["violations"] = [
                    FieldViolation(violation.field, violation.description, violation.reason)
                    for violation in bad_request.field_violations
                ]
            elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(packed.value).retry_delay
                details["retry_delay"] = max(0.0, delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        return details
    return details
