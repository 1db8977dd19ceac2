"""Failures of calls to a Kubernetes API server: one closed hierarchy.

    ClusterError
    ├── Unreachable        no response, or an unusable one: connection, deadline, 5xx, start-up of the server
    │   ├── StorageStalled the API server responds, its storage does not: nothing is written, and reads are old
    │   ├── Away           known not to respond: no request was sent
    │   ├── Unreadable     a response, or an object in it, has another form than an API server's
    │   │   └── TooManyValues  an object too dense to read, perhaps by a user of the cluster: only it is left out
    │   ├── AnswerTooLarge a response, a line or a message is too long: nothing of it is used
    │   └── NotTrusted     the authorities in the credentials did not issue the server's certificate
    ├── InternalError      500 with the API server's own message: it responds, but its request to a webhook fails
    ├── Throttled          429 (or our own rate limit cannot be met before the deadline); has the time to retry
    ├── Unauthorized       401: the credentials are not, or no longer, accepted
    ├── CredentialsRefused the credentials cannot be used at all (malformed kubeconfig, exec plugins, expired CA ...)
    ├── Expired            410: a resourceVersion or continue token is too old; list again
    └── Refused            the API server understood and refused the request; has its message
        ├── NotFound       404 of an object (or of its namespace)
        ├── Forbidden      403: access rights, quota, admission, or a namespace that is being deleted
        ├── Conflict       409: a field manager, a stale version, a precondition, a name that is taken
        └── Invalid        422 and the refusals of a body that an API server reports as 400 or, in apply, as 500
            └── TooLarge   413, and the storage's own limit, which comes as a 500

API servers report failures in irregular shapes (see the recordings): `reason` and `details` may be absent, an apply
with a wrong type is a 500 without reason, a 504 comes as text/plain without `kind`. Only `from_response` handles these
shapes. After a 504 or a broken connection, a write may or may not be stored: each of our writes may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

# The result of the same call later: it may succeed without any change; it fails until somebody changes something; or
# its object, or the namespace, no longer exists.
Outlook = Literal["passing", "refused", "gone"]

# The `status_reason` of a Conflict that we raise ourselves: another owner's object has the name.
NAME_TAKEN = "NameTaken"
# The reason of an object that is not sent, because it contains something that nobody was allowed to use.
GUARDED = "Guarded"
# The reason of a refusal if our Kubernetes namespace has lost the label that makes it ours.
LABEL_LOST = "LabelLost"


class StatusCause(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of a Status' `details.causes`."""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[StatusCause, ...] = ()
    retry_after_seconds: int = 0


class Status(msgspec.Struct, frozen=True):
    """A Kubernetes Status object; every part may be absent."""

    status: str = ""
    message: str = ""
    reason: str = ""
    details: StatusDetails | None = None
    code: int = 0


class FieldConflict(msgspec.Struct, frozen=True):
    """A field that another manager owns: `manager` as the API names it, `field` as a path in its syntax."""

    manager: str
    field: str


class ClusterError(Exception):
    """Base of all failures of a cluster call.

    `message` has the cluster's own message if there is one, else ours, and never a library's; it may be shown to
    users of the cluster. `answered`: the HTTP status of the cluster's message; 0 if the message is ours. `outlook`: the
    result of the same call later. `does`: a verb phrase that messages put between the cluster's name and `message`.
    """

    outlook: Outlook = "passing"
    answered = 0
    does = "refuses"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def reason(self) -> str:
        """A CamelCase reason for a condition."""
        return type(self).__name__


class Unreachable(ClusterError):
    """No usable response. A write may or may not be stored: repeat it."""

    # Not "does not respond": it may respond, but in an unusable way.
    does = "is not available"


class NotTrusted(Unreachable):
    """The server's certificate is not trusted. Next move: correct the authorities, or the address."""


class StorageStalled(Unreachable):
    """The server responds from its cache. Next move: wait for its storage."""


class Unreadable(Unreachable):
    """The response has another form than requested. Next move: find out which program responds there."""


class TooManyValues(Unreadable):
    """An object has more values than are read. Next move: make it smaller; nothing is wrong with the cluster."""

    does = "sends too many values"


class AnswerTooLarge(Unreachable):
    """The server sends more than a response may have. Next move: find out which program responds there."""


class Away(Unreachable):
    """The server is known not to respond, so no request was sent. Next move: wait until it responds."""


class InternalError(ClusterError):
    """The server responds but cannot execute the call, mostly because a webhook fails. Next move: retry later.

    Not Unreachable: the known state of the cluster stays fresh, and other calls succeed.
    """

    does = "fails"


class Throttled(ClusterError):
    """Too many requests. Next move: wait `retry_after_seconds`.

    `of_client`: the server counts the requests of a client, so all of them wait. Otherwise only this one does: while
    the watch cache of a kind of object starts, lists and watches of that kind get 429 (Kubernetes 1.37).
    """

    does = "does not accept the request now"

    def __init__(self, message: str, *, retry_after_seconds: float, of_client: bool = True) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.of_client = of_client


class Unauthorized(ClusterError):
    """401. Next move: renew the cluster's credentials."""


class CredentialsRefused(ClusterError):
    """The connection cannot be built from the credentials. Next move: correct them.

    `field`: the part of the credentials that is wrong, such as `address.api_server`; '' if no single part is.
    """

    # `outlook` stays "passing": the object itself is not refused, and is applied once the credentials are corrected.
    does = "cannot be connected to"

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Expired(ClusterError):
    """410: the requested version is no longer available. Next move: list again, then watch from the list's version."""


class Refused(ClusterError):
    """The API server refused the request.

    `code`: HTTP status; `status_reason`: the Status' reason, empty if the server gave none; `causes`: by field.
    """

    outlook: Outlook = "refused"

    def __init__(
        self, message: str, *, code: int, status_reason: str = "", causes: tuple[StatusCause, ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status_reason = status_reason
        self.causes = causes

    @property
    def reason(self) -> str:
        # A webhook may set any reason, even whole sentences.
        return self.status_reason if self.status_reason.isalnum() else type(self).__name__


class NotFound(Refused):
    """The object, or the namespace in which it should be created, does not exist."""

    outlook = "gone"


class Forbidden(Refused):
    """403. The message names the verb and resource, the quota, or the policy that forbids.

    `namespace_terminating`: the namespace is being deleted, so nothing can be created in it.
    """

    @property
    def namespace_terminating(self) -> bool:
        return any(cause.reason == "NamespaceTerminating" for cause in self.causes)

    @property
    def outlook(self) -> Outlook:  # type: ignore[override]
        return "gone" if self.namespace_terminating else "refused"

    @property
    def permission(self) -> str:
        """The missing right, such as `patch deployments.apps`; empty if something else forbids the call.

        An API server that has just started refuses with the same message for a moment, until it has read its roles.
        """
        found = _DENIED.search(self.message)
        return "" if found is None else f"{found[1]} {found[2]}{'.' if found[3] else ''}{found[3]}"


class Conflict(Refused):
    """409. `fields` names other field managers' fields; empty for stale versions, preconditions and taken names.

    `already_exists`: the name is taken (create only).
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 409,
        status_reason: str = "",
        causes: tuple[StatusCause, ...] = (),
        fields: tuple[FieldConflict, ...] = (),
    ) -> None:
        super().__init__(message, code=code, status_reason=status_reason, causes=causes)
        self.fields = fields
        if self.name_taken:
            # This refusal is ours, not the cluster's.
            self.does = "has an object of another owner"

    @property
    def already_exists(self) -> bool:
        return self.status_reason == "AlreadyExists"

    @property
    def name_taken(self) -> bool:
        """Whether another owner's object has the name; we do not touch that object."""
        return self.status_reason == NAME_TAKEN

    @property
    def outlook(self) -> Outlook:  # type: ignore[override]
        return "refused" if self.fields or self.already_exists or self.name_taken else "passing"


class Invalid(Refused):
    """The object was validated and refused; `causes` names the fields if the server did."""


class TooLarge(Invalid):
    """The object is larger than the cluster accepts."""

    @property
    def reason(self) -> str:
        return type(self).__name__


_DENIED = re.compile(r'User "[^"]*" cannot (\S+) resource "([^"]*)" in API group "([^"]*)"')
MANAGER = re.compile(r'conflict with "((?:[^"\\]|\\.)*)"')
MESSAGE_LIMIT = 4096
MOST_CAUSES = 100
# Errors of decoders for unreadable input, including endless nesting and a number of thousands of digits.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
# A malformed apply gets a 500 without reason whose message has one of these phrases.
MALFORMED_APPLY = ("failed to create typed patch object", "failed to create manager", "unable to decode")
# An object above the storage's limit (1.5 MiB unless configured) gets a 500 without reason whose message has one of
# these phrases. Above 2 MiB, the API server's own storage client refuses it.
TOO_LARGE = ("request is too large", "trying to send message larger than")
# A storage without a leader is an outage, although the API server sends a Status.
STORAGE = "etcdserver:"
# In refusals of lists and watches of one kind of object, while the API server fills its watch cache.
_CACHE_STARTS = "storage is (re)initializing"
DEFAULT_RETRY_AFTER_SECONDS = 1.0

# By HTTP status; 500 is used only for a malformed apply.
REFUSALS: Mapping[int, type[Refused]] = {
    404: NotFound,
    403: Forbidden,
    400: Invalid,
    422: Invalid,
    500: Invalid,
}

_status = msgspec.json.Decoder(Status, strict=False)


def shown(text: str) -> str:
    """Returns a cluster's text in a form that may be stored and shown: of a bounded length, without NUL."""
    return text[:MESSAGE_LIMIT].replace("\0", "")


def parse_status(body: bytes) -> Status:
    """Returns the Status in `body`; for any other text, a Status with its first line as the message."""
    try:
        return _status.decode(body)
    except UNREADABLE:
        text = body[: 4 * MESSAGE_LIMIT].decode("utf-8", "replace").strip()
        return Status(message=text.splitlines()[0] if text else "")


def from_response(code: int, headers: Mapping[str, str], body: bytes) -> ClusterError:
    """Returns the error for a response with HTTP status `code` (400 or more)."""
    error = from_status(parse_status(body), code=code, retry_after=headers.get("Retry-After", ""))
    error.answered = code
    return error


def from_status(status: Status, *, code: int = 0, retry_after: str = "") -> ClusterError:
    """Returns the error for a Status; `code` overrides the Status' own (an ERROR event of a watch has only that)."""
    code = code or status.code or 500
    message = shown(status.message) or f"the cluster responded with {code}"
    details = status.details or StatusDetails()
    if code == 410 or status.reason in ("Expired", "Gone"):
        return Expired(message)
    if code == 401:
        return Unauthorized(message)
    if code == 429:
        return Throttled(
            message,
            retry_after_seconds=_seconds(retry_after, details.retry_after_seconds),
            of_client=_CACHE_STARTS not in status.message,
        )
    too_large = code == 413 or (code >= 500 and any(each in status.message for each in TOO_LARGE))
    if code >= 500 and not too_large and not _malformed_apply(code, status):
        # Proxies in between also send 500, but without a Status.
        answers = code == 500 and status.status == "Failure" and STORAGE not in status.message
        return InternalError(message) if answers else Unreachable(message)
    return _refusal(status, code, message, too_large=too_large)


def _refusal(status: Status, code: int, message: str, *, too_large: bool) -> Refused:
    said = status.details.causes[:MOST_CAUSES] if status.details else ()
    causes = tuple(StatusCause(shown(each.reason), shown(each.message), shown(each.field)) for each in said)
    reason = shown(status.reason)
    if code == 409 and not too_large:
        return Conflict(message, code=code, status_reason=reason, causes=causes, fields=_fields(causes))
    kind: type[Refused] = TooLarge if too_large else REFUSALS.get(code, Refused)
    return kind(message, code=code, status_reason=reason, causes=causes)


def _malformed_apply(code: int, status: Status) -> bool:
    return code == 500 and not status.reason and any(each in status.message for each in MALFORMED_APPLY)


def _seconds(header: str, details: int) -> float:
    try:
        seconds = float(header)
    except ValueError:
        seconds = float(details)
    # A header may also be a date or absent, and 0 would be a hot loop.
    return min(seconds, 300.0) if seconds > 0 else DEFAULT_RETRY_AFTER_SECONDS


def _fields(causes: tuple[StatusCause, ...]) -> tuple[FieldConflict, ...]:
    return tuple(
        FieldConflict(manager=_manager(cause.message), field=cause.field)
        for cause in causes
        if cause.reason == "FieldManagerConflict"
    )


def _manager(message: str) -> str:
    found = MANAGER.search(message)
    return found.group(1) if found else message
