"""Every failure that a caller may see, in one closed hierarchy.

Rules, repositories and the kernel deliberately raise only these errors. The outermost interceptor turns
each into its canonical gRPC code, a `google.rpc.ErrorInfo` (the reason, the metadata) and, if there are
violations, a `google.rpc.BadRequest`. Any other exception is a bug of the server and reaches the caller as INTERNAL
without its text. So messages here are written for the caller, and never contain SQL, a secret or a driver's text.

This module does not import gRPC, so that the rules need not. `code` is the name of the canonical code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One error in one field of a request.

    `field` is its full path as the caller wrote it (`container.ports[0].container_port`), `rule` a word for
    programs (`required`, `maximum`, `format_dns_label`), `description` a sentence for people.
    """

    field: str
    rule: str
    description: str


class PilothouseError(Exception):
    """The base of the hierarchy; only its subclasses are raised.

    `message` is lower-case and names the remedy. `reason` is UPPER_SNAKE and stable, because programs depend on it.
    `metadata` is sent in ErrorInfo. `retry_after_seconds` is set if a later retry may succeed.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[Violation, ...] = tuple(violations)
        self.retry_after_seconds = retry_after_seconds

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}: {self.message})"


class InvalidArgument(PilothouseError):
    """The request is wrong in any state of the system."""

    code = "INVALID_ARGUMENT"


class NotFound(PilothouseError):
    """The object does not exist, or the caller may not know that it exists."""

    code = "NOT_FOUND"


class AlreadyExists(PilothouseError):
    """The name is taken."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(PilothouseError):
    """The state of the system forbids the request; the message names that state."""

    code = "FAILED_PRECONDITION"


class Aborted(PilothouseError):
    """A concurrent change was committed first: read the resource again, then retry."""

    code = "ABORTED"


class ResourceExhausted(PilothouseError):
    """A quota, a rate or a buffer is used up."""

    code = "RESOURCE_EXHAUSTED"


class OutOfRange(PilothouseError):
    """The position no longer exists, or does not exist yet."""

    code = "OUT_OF_RANGE"


class Unauthenticated(PilothouseError):
    """The caller has no valid credential."""

    code = "UNAUTHENTICATED"


class PermissionDenied(PilothouseError):
    """The caller is known, but lacks the permission."""

    code = "PERMISSION_DENIED"


class Unavailable(PilothouseError):
    """A database or cluster is unreachable, or this server is shutting down.

    The message names which.
    """

    code = "UNAVAILABLE"


class Unimplemented(PilothouseError):
    """The server has no such method."""

    code = "UNIMPLEMENTED"


def invalid(
    field: str, description: str, *, reason: str = "INVALID_FIELD", rule: str = ""
) -> InvalidArgument:
    """Returns the error for one wrong field.

    `rule` defaults to the reason in lower case.
    """
    violation = Violation(field, rule or reason.lower(), description)
    return InvalidArgument(
        f"{field}: {description}", reason=reason, metadata={"field": field}, violations=(violation,)
    )


def in_field(error: PilothouseError, field: str) -> PilothouseError:
    """Returns the same error, but for a part of the request, such as `scopes[2]`."""
    violations = [replace(each, field=f"{field}.{each.field}") for each in error.violations]
    return type(error)(
        f"{field}: {error.message}",
        reason=error.reason,
        metadata={**error.metadata, "field": field},
        violations=violations or (Violation(field, error.reason.lower(), error.message),),
        retry_after_seconds=error.retry_after_seconds,
    )


# Every check reports a missing field in the same way: the same words, rule and reason.
MISSING = "must be given"
REQUIRED = "REQUIRED"


def missing(field: str) -> InvalidArgument:
    """Returns the error for a field that must be given and is empty."""
    return invalid(field, MISSING, reason=REQUIRED)


def missing_field(field: str) -> Violation:
    """Returns the violation for a field that must be given and is empty.

    It is for an error with several violations.
    """
    return Violation(field, REQUIRED.lower(), MISSING)


def over_all_namespaces_needed(
    permission: str, namespace: str, why: str, **metadata: str
) -> PermissionDenied:
    """Returns the error for a permission that no grant in one namespace gives.

    `access.OVER_ALL_NAMESPACES` has these permissions. `why` names the field or call that needs the permission.
    """
    return PermissionDenied(
        f'permission {permission} is needed in namespace "{namespace}", from a grant over all namespaces: {why}',
        reason="PERMISSION_DENIED",
        metadata={"permission": permission, "namespace": namespace, **metadata},
    )


def not_found(kind: str, name: str) -> NotFound:
    """Returns the error for an object that does not exist, or may not be seen.

    `kind` is a text such as `role grant`.
    """
    return NotFound(
        f'{kind} "{name}" not found',
        reason=f"{_reason_word(kind)}_NOT_FOUND",
        metadata={"resource_type": kind, "name": name},
    )


def already_exists(kind: str, name: str, *, being_deleted: bool = False) -> AlreadyExists:
    """Returns the error for a name that an object of this `kind` already has.

    That object may be `being_deleted`.
    """
    until = ", and is being deleted: its name is free once it is gone" if being_deleted else ""
    return AlreadyExists(
        f'{kind} "{name}" already exists{until}',
        reason=f"{_reason_word(kind)}_ALREADY_EXISTS",
        metadata={"resource_type": kind, "name": name} | ({"being_deleted": "true"} if being_deleted else {}),
    )


def _reason_word(kind: str) -> str:
    return kind.upper().replace(" ", "_").replace("-", "_")
