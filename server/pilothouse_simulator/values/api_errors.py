"""The failures of the simulated API server, as Kubernetes Status objects.

Every refusal of the API server is one `ApiError` with the complete `Status` object that an HTTP client receives. The
constructors below are all refusals; their wording, `reason` and `details` follow recordings of a Kubernetes 1.36
server, because clients (kubectl, the Pilothouse adapter) depend on `reason`, `details` and `causes`, and people read
the messages.

Two oddities are intended. `details.kind` is the resource name (`deployments`) for 403, 404 and 409 but the kind
(`Deployment`) for 422. `Conflict` means both a stale resourceVersion (details name the object) and a conflict of field
managers (details have only causes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class ErrorCause:
    """One entry of `details.causes`: `reason` such as FieldValueInvalid, and the path of the field."""

    reason: str
    message: str
    field: str = ""

    def to_json(self) -> JsonObject:
        document: JsonObject = {"reason": self.reason, "message": self.message}
        if self.field:
            document["field"] = self.field
        return document


class ApiError(Exception):
    """A refused request. `status` is the Kubernetes Status object, `code` its HTTP status code.

    `headers` are added to the HTTP response (for example Retry-After).
    """

    def __init__(self, status: JsonObject, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(status.get("message", "")))
        self.status = status
        self.code = int(status["code"])
        self.headers = headers or {}

    @property
    def reason(self) -> str:
        """Returns the machine-readable reason (`NotFound`, `Conflict`, …); empty if the server gives none."""
        return str(self.status.get("reason", ""))


def failure(
    code: int, message: str, reason: str | None = None, details: JsonObject | None = None
) -> ApiError:
    """Returns any failure; `reason` and `details` are absent from the Status if None."""
    status: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    if reason is not None:
        status["reason"] = reason
    if details is not None:
        status["details"] = details
    status["code"] = code
    return ApiError(status)


def object_details(resource: ResourceType, name: str, kind: str | None = None) -> JsonObject:
    """Returns the `details` that name one object; `group` is absent for the core group, `name` if it is empty."""
    details: JsonObject = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    details["kind"] = kind if kind is not None else resource.plural
    return details


def qualified(resource: ResourceType) -> str:
    """Returns the name of a resource in messages: `deployments.apps`, or `pods` for the core group."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def not_found(resource: ResourceType, name: str) -> ApiError:
    """Returns 404: the object does not exist."""
    return failure(
        404, f'{qualified(resource)} "{name}" not found', "NotFound", object_details(resource, name)
    )


def unknown_resource() -> ApiError:
    """Returns 404 for a known API prefix with a resource or version that the server does not have."""
    return failure(404, "the server could not find the requested resource", "NotFound", {})


def method_not_allowed() -> ApiError:
    """Returns 405: the resource exists, the verb does not."""
    return failure(
        405, "the server does not allow this method on the requested resource", "MethodNotAllowed", {}
    )


def already_exists(resource: ResourceType, name: str, *, being_deleted: bool = False) -> ApiError:
    """Returns 409: create of a name that is taken, perhaps by an object that is being deleted."""
    prefix = "object is being deleted: " if being_deleted else ""
    return failure(
        409,
        f'{prefix}{qualified(resource)} "{name}" already exists',
        "AlreadyExists",
        object_details(resource, name),
    )


def conflict(resource: ResourceType, name: str, message: str | None = None) -> ApiError:
    """Returns 409: the resourceVersion (or uid) sent is not the stored one; read again and retry."""
    explanation = message or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    return failure(
        409,
        f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {explanation}',
        "Conflict",
        object_details(resource, name),
    )


def apply_conflict(causes: Sequence[ErrorCause], message: str) -> ApiError:
    """Returns 409: server-side apply would take fields from other managers; retry with force to take them."""
    return failure(409, message, "Conflict", {"causes": [cause.to_json() for cause in causes]})


def precondition_failed(resource: ResourceType, name: str, message: str) -> ApiError:
    """Returns 409 of DELETE preconditions; unlike other conflicts `details.kind` is the kind."""
    return failure(
        409,
        f"Operation cannot be fulfilled on {resource.kind}{'.' + resource.group if resource.group else ''} "
        f'"{name}": {message}',
        "Conflict",
        object_details(resource, name, resource.kind),
    )


def invalid(resource: ResourceType, name: str, causes: Sequence[ErrorCause]) -> ApiError:
    """Returns 422: the object violates validation rules; one cause per field."""
    return invalid_kind(resource.kind, resource.group, name, causes)


def invalid_kind(kind: str, group: str, name: str, causes: Sequence[ErrorCause]) -> ApiError:
    """Returns 422 for a kind that is not the resource's own (Scale, CreateOptions, ListOptions …)."""
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    joined = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    qualified_kind = f"{kind}.{group}" if group else kind
    details: JsonObject = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    details["causes"] = [cause.to_json() for cause in causes]
    return failure(422, f'{qualified_kind} "{name}" is invalid: {joined}', "Invalid", details)


def version_required(resource: ResourceType, name: str) -> ApiError:
    """Returns 422: updates of the kind require the resourceVersion that was read.

    Here `details.kind` is the resource.
    """
    cause = ErrorCause(
        "FieldValueInvalid", "Invalid value: 0: must be specified for an update", "metadata.resourceVersion"
    )
    return failure(
        422,
        f'{qualified(resource)} "{name}" is invalid: {cause.field}: {cause.message}',
        "Invalid",
        {**object_details(resource, name), "causes": [cause.to_json()]},
    )


def bad_request(message: str) -> ApiError:
    """Returns 400: the request cannot be understood (bad JSON, bad parameter, bad selector)."""
    return failure(400, message, "BadRequest")


def forbidden(resource: ResourceType, name: str, message: str, causes: Sequence[ErrorCause] = ()) -> ApiError:
    """Returns 403 by an admission rule. `message` is the reason."""
    details = object_details(resource, name)
    if causes:
        details["causes"] = [cause.to_json() for cause in causes]
    return failure(403, f'{qualified(resource)} "{name}" is forbidden: {message}', "Forbidden", details)


def unauthorized() -> ApiError:
    """Returns 401: no bearer token, or a wrong one."""
    return failure(401, "Unauthorized", "Unauthorized")


def expired(message: str, metadata: JsonObject | None = None) -> ApiError:
    """Returns 410: the requested version is compacted; list again without it."""
    error = failure(410, message, "Expired")
    if metadata:
        error.status["metadata"] = metadata
    return error


def too_large_resource_version(current: int, wanted: int) -> ApiError:
    """Returns 504: the requested version lies in the future and was not reached within three seconds."""
    cause = ErrorCause("ResourceVersionTooLarge", "Too large resource version")
    return failure(
        504,
        f"Timeout: Too large resource version: {wanted}, current: {current}",
        "Timeout",
        {"causes": [cause.to_json()], "retryAfterSeconds": 1},
    )


def not_acceptable() -> ApiError:
    """Returns 406: none of the media types of the Accept header can be served."""
    return failure(
        406,
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf",
        "NotAcceptable",
        {},
    )


def form_not_acceptable() -> ApiError:
    """Returns 406: the media type can be served, but not in the form that its parameters request."""
    return failure(
        406,
        "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf",
        "NotAcceptable",
    )


def unfit_form(asked: str, what: str, type_name: str) -> ApiError:
    """Returns 406: the requested form is for lists and the response is a single object, or the reverse."""
    return failure(
        406, f"you requested {asked}, but the requested object is {what} ({type_name})", "NotAcceptable"
    )


def internal_error(message: str) -> ApiError:
    """Returns 500 without reason or details, as the real server does for a body that apply cannot convert."""
    return failure(500, message)


def too_many_requests(retry_after_seconds: int) -> ApiError:
    """Returns 429 with Retry-After: the server asks the client to retry later."""
    error = failure(
        429,
        "too many requests, please try again later",
        "TooManyRequests",
        {"retryAfterSeconds": retry_after_seconds},
    )
    error.headers["Retry-After"] = str(retry_after_seconds)
    return error
