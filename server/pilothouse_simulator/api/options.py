"""Parses the query parameters of requests, and refuses bad combinations as the real server does."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_simulator.admission.validation_metadata import not_supported, required, too_long
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ApiError, ErrorCause, bad_request

JsonObject = dict[str, Any]

_FIELD_VALIDATION = ("", "Ignore", "Strict", "Warn")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False", ""})
MANAGER_LIMIT_BYTES = 128


def boolean(query: Mapping[str, str], name: str) -> bool | None:
    """Returns a boolean parameter; None if it is absent. Raises 400 if it is not a boolean."""
    text = query.get(name)
    if text is None:
        return None
    if text in _TRUE or (text == "" and name != "force"):
        return text != ""
    if text in _FALSE:
        return False
    raise bad_request(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def integer(query: Mapping[str, str], name: str) -> int | None:
    """Returns an integer parameter; None if it is absent or empty. Raises 400 if it is not a number."""
    text = query.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error


def resource_version(text: str) -> int:
    """Returns a resourceVersion as a number. Raises ValueError with the real server's message."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


def options_invalid(kind: str, causes: list[ErrorCause]) -> ApiError:
    """Returns 422 for CreateOptions, PatchOptions, ListOptions …"""
    return api_errors.invalid_kind(kind, "meta.k8s.io", "", causes)


@dataclass(frozen=True)
class WriteOptions:
    """dryRun, fieldManager, fieldValidation and force of a write."""

    dry_run: bool
    field_manager: str
    field_validation: str
    force: bool


def write_options(query: Mapping[str, str], kind: str, user_agent: str, *, applies: bool) -> WriteOptions:
    """Reads and checks the options of a write; `kind` is the name of the options in refusals."""
    causes: list[ErrorCause] = []
    force = boolean(query, "force")
    manager = query.get("fieldManager", "")
    if applies and not manager:
        causes.append(required("fieldManager", "is required for apply patch"))
    if kind == "PatchOptions" and not applies and force is not None:
        causes.append(
            ErrorCause("FieldValueForbidden", "Forbidden: may not be specified for non-apply patch", "force")
        )
    if len(manager.encode()) > MANAGER_LIMIT_BYTES:
        causes.append(too_long("fieldManager", MANAGER_LIMIT_BYTES))
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        cause = not_supported("dryRun", [dry_run], ("All",))
        causes.append(cause)
    validation = query.get("fieldValidation", "")
    if validation not in _FIELD_VALIDATION:
        causes.append(not_supported("fieldValidation", validation, _FIELD_VALIDATION))
    if causes:
        raise options_invalid(kind, causes)
    if not manager:
        manager = user_agent.partition("/")[0][:MANAGER_LIMIT_BYTES] or "unknown"
    return WriteOptions(dry_run == "All", manager, validation or "Warn", bool(force))


@dataclass(frozen=True)
class ListOptions:
    """Options of list and watch. An absent `version` is None."""

    label_selector: str
    field_selector: str
    limit: int
    continue_token: str
    version_text: str
    match: str
    watch: bool
    bookmarks: bool
    timeout_seconds: int | None
    send_initial_events: bool | None


def list_options(query: Mapping[str, str], *, watch: bool) -> ListOptions:
    """Reads the options and refuses bad combinations with 400 or 422."""
    options = ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        limit=max(0, integer(query, "limit") or 0),
        continue_token=query.get("continue", ""),
        version_text=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        watch=watch,
        bookmarks=bool(boolean(query, "allowWatchBookmarks")),
        timeout_seconds=integer(query, "timeoutSeconds"),
        send_initial_events=boolean(query, "sendInitialEvents"),
    )
    causes = _watch_causes(options) if watch else _list_causes(options)
    if causes:
        raise options_invalid("ListOptions", causes)
    if options.continue_token and options.version_text not in ("", "0") and not watch:
        raise bad_request("specifying resource version is not allowed when using continue")
    return options


def _forbidden(field: str, message: str) -> ErrorCause:
    return ErrorCause("FieldValueForbidden", f"Forbidden: {message}", field)


def _list_causes(options: ListOptions) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    field = "resourceVersionMatch"
    if options.match:
        if not options.version_text:
            causes.append(_forbidden(field, f"{field} is forbidden unless resourceVersion is provided"))
        if options.continue_token:
            causes.append(_forbidden(field, f"{field} is forbidden when continue is provided"))
        if options.match not in ("Exact", "NotOlderThan"):
            causes.append(not_supported(field, options.match, ("Exact", "NotOlderThan", "")))
        if options.match == "Exact" and options.version_text == "0":
            causes.append(_forbidden(field, f'{field} "exact" is forbidden for resourceVersion "0"'))
    if options.send_initial_events is not None:
        causes.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return causes


def _watch_causes(options: ListOptions) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    field = "resourceVersionMatch"
    if options.send_initial_events is not None:
        if options.match != "NotOlderThan":
            message = f"sendInitialEvents requires setting {field} to NotOlderThan"
            causes.append(_forbidden(field, message))
        if options.match and options.match != "NotOlderThan":
            causes.append(not_supported(field, options.match, ("NotOlderThan",)))
    elif options.match:
        message = f"{field} is forbidden for watch unless sendInitialEvents is provided"
        causes.append(_forbidden(field, message))
    return causes


def encode_continue(revision: int, start: str) -> str:
    """Returns a continue token: the version of the snapshot and the key after which to continue."""
    document = {"v": "meta.k8s.io/v1", "rv": revision, "start": start}
    text = json.dumps(document, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_continue(token: str) -> tuple[int, str]:
    """Returns the version and start key of a continue token. Raises 400 if the token is invalid."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        document = json.loads(raw)
        revision, start = int(document["rv"]), str(document["start"])
        if document.get("v") != "meta.k8s.io/v1":
            raise ValueError("wrong version")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error
    return revision, start.removeprefix("/")
