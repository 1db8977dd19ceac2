"""Validation of names, labels, annotations and label selectors.

Every check returns a list of causes; paths and wording are those of Kubernetes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.resources import NAMESPACES, ROLE_BINDINGS, ROLES, SERVICES, ResourceType

JsonObject = dict[str, Any]

ANNOTATIONS_LIMIT_BYTES = 256 * 1024

_LABEL_1123 = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN_1123 = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_QUALIFIED_NAME = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")

LABEL_1123_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
    "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_NAME_PART_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def invalid_value(field: str, value: Any, message: str) -> ErrorCause:
    """Returns FieldValueInvalid with the value as JSON."""
    shown = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return ErrorCause("FieldValueInvalid", f"Invalid value: {shown}: {message}", field)


def required(field: str, message: str = "") -> ErrorCause:
    """Returns FieldValueRequired."""
    return ErrorCause(
        "FieldValueRequired", f"Required value: {message}" if message else "Required value", field
    )


def not_supported(field: str, value: Any, supported: tuple[str, ...]) -> ErrorCause:
    """Returns FieldValueNotSupported with the list of supported values."""
    shown = ", ".join(json.dumps(entry) for entry in supported)
    return ErrorCause(
        "FieldValueNotSupported", f"Unsupported value: {json.dumps(value)}: supported values: {shown}", field
    )


def forbidden_field(field: str, message: str) -> ErrorCause:
    """Returns FieldValueForbidden."""
    return ErrorCause("FieldValueForbidden", f"Forbidden: {message}", field)


def too_long(field: str, limit: int) -> ErrorCause:
    """Returns FieldValueTooLong with the limit in bytes."""
    return ErrorCause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)


def label_name_problem(name: str) -> str | None:
    """Returns why a text is not an RFC 1123 label (the names of namespaces, containers, volumes)."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    return None if _LABEL_1123.match(name) else LABEL_1123_MESSAGE


def subdomain_problem(name: str) -> str | None:
    """Returns why a text is not an RFC 1123 subdomain (the names of most objects)."""
    if len(name) > 253:
        return "must be no more than 253 characters"
    return None if _SUBDOMAIN_1123.match(name) else _SUBDOMAIN_MESSAGE


def validate_metadata(resource: ResourceType, metadata: JsonObject) -> list[ErrorCause]:
    """Checks the name, labels and annotations of an object."""
    causes: list[ErrorCause] = []
    name = metadata.get("name")
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        problem = _name_check(resource)(name)
        if problem:
            causes.append(invalid_value("metadata.name", name, problem))
    causes += validate_labels(metadata.get("labels"), "metadata.labels")
    causes += validate_annotations(metadata.get("annotations"), "metadata.annotations")
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        problem = qualified_name_problem(finalizer)
        if problem:
            causes.append(invalid_value(f"metadata.finalizers[{index}]", finalizer, problem))
    return causes


def _name_check(resource: ResourceType) -> Callable[[str], str | None]:
    if resource in (ROLES, ROLE_BINDINGS):
        return path_segment_problem
    return label_name_problem if resource in (NAMESPACES, SERVICES) else subdomain_problem


def path_segment_problem(name: str) -> str | None:
    """Returns why a text cannot be one segment of a path (the names of roles and their bindings)."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    return next((f"may not contain '{part}'" for part in ("/", "%") if part in name), None)


def qualified_name_problem(key: str) -> str | None:
    """Returns why a text is not a valid label or annotation key."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or subdomain_problem(prefix)):
        return f"prefix part {subdomain_problem(prefix) or 'must be non-empty'}"
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:
        return "name part must be no more than 63 bytes"
    return None if _QUALIFIED_NAME.match(name) else _NAME_PART_MESSAGE


def validate_labels(labels: JsonObject | None, field: str) -> list[ErrorCause]:
    """Checks the keys and values of labels."""
    causes: list[ErrorCause] = []
    for key, value in sorted((labels or {}).items()):
        problem = qualified_name_problem(key)
        if problem:
            causes.append(invalid_value(field, key, problem))
        if len(value) > 63:
            causes.append(invalid_value(field, value, "must be no more than 63 bytes"))
        elif not _LABEL_VALUE.match(value):
            causes.append(invalid_value(field, value, _LABEL_VALUE_MESSAGE))
    return causes


def validate_annotations(annotations: JsonObject | None, field: str) -> list[ErrorCause]:
    """Checks the keys of annotations and their total size."""
    causes: list[ErrorCause] = []
    size = 0
    for key, value in sorted((annotations or {}).items()):
        size += len(key.encode()) + len(value.encode())
        problem = qualified_name_problem(key.lower())
        if problem:
            causes.append(invalid_value(field, key, problem))
    if size > ANNOTATIONS_LIMIT_BYTES:
        causes.append(too_long(field, ANNOTATIONS_LIMIT_BYTES))
    return causes


def validate_label_selector(selector: JsonObject, field: str) -> list[ErrorCause]:
    """Checks a LabelSelector object."""
    causes = validate_labels(selector.get("matchLabels"), f"{field}.matchLabels")
    for index, entry in enumerate(selector.get("matchExpressions") or []):
        path = f"{field}.matchExpressions[{index}]"
        operator, values = entry.get("operator", ""), entry.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(
                    required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
                )
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                causes.append(forbidden_field(f"{path}.values", message))
        else:
            causes.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
        problem = qualified_name_problem(entry.get("key", ""))
        if problem:
            causes.append(invalid_value(f"{path}.key", entry.get("key", ""), problem))
    return causes
