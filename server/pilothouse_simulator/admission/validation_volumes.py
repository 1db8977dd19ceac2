"""Validation of a pod's volumes: one source each, required names, permission bits, and paths of files.

The rules and their texts are those of Kubernetes' `ValidateVolumes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from pilothouse_simulator.admission.validation_metadata import (
    forbidden_field,
    invalid_value,
    label_name_problem,
    not_supported,
    required,
)
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.quantities import parse_quantity

JsonObject = dict[str, Any]

_MODE_MESSAGE = "must be a number between 0 and 0777 (octal), both inclusive"
_LARGEST_MODE = 0o777
_SHORTEST_TOKEN_SECONDS, _LONGEST_TOKEN_SECONDS = 600, 1 << 32
_ONE_TYPE = "may not specify more than 1 volume type"
_SAME_PATH = "conflicting duplicate paths"
_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_FIELD_KEY = re.compile(r"metadata\.(annotations|labels)\['.+'\]")
_AMOUNTS = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
    "requests.memory",
)  # fmt: skip


def validate_volumes(volumes: list[JsonObject], field: str) -> tuple[set[str], list[ErrorCause]]:
    """Checks volumes whose defaults are filled; returns their names and the causes."""
    names: set[str] = set()
    causes: list[ErrorCause] = []
    for index, volume in enumerate(volumes):
        name = volume.get("name", "")
        path = f"{field}[{index}].name"
        problem = label_name_problem(name)
        if not name:
            causes.append(required(path))
        elif problem:
            causes.append(invalid_value(path, name, problem))
        elif name in names:
            causes.append(ErrorCause("FieldValueDuplicate", f'Duplicate value: "{name}"', path))
        names.add(name)
        causes += _validate_source(volume, f"{field}[{index}]")
    return names, causes


def _validate_source(volume: JsonObject, field: str) -> list[ErrorCause]:
    given = [key for key, source in volume.items() if key != "name" and source is not None]
    if not given:
        return [required(field, "must specify a volume type")]
    causes = [forbidden_field(f"{field}.{key}", _ONE_TYPE) for key in given[1:]]
    validate = _SOURCES.get(given[0])
    return causes if validate is None else causes + validate(volume[given[0]], f"{field}.{given[0]}")


def _named(key: str) -> Callable[[JsonObject, str], list[ErrorCause]]:
    def validate(source: JsonObject, field: str) -> list[ErrorCause]:
        causes = [] if source.get(key) else [required(f"{field}.{key}")]
        return causes + _files(source, field, set())

    return validate


def _files(source: JsonObject, field: str, paths: set[str]) -> list[ErrorCause]:
    """Checks the permission bits and the items of a config map or secret. Adds the paths of the items to `paths`."""
    causes = _mode(source, "defaultMode", field)
    for index, item in enumerate(source.get("items") or []):
        at = f"{field}.items[{index}]"
        if not item.get("key"):
            causes.append(required(f"{at}.key"))
        causes += _path(item, at) + _mode(item, "mode", at)
        paths.add(item.get("path", ""))
    return causes


def _downward(source: JsonObject, field: str) -> list[ErrorCause]:
    causes = _mode(source, "defaultMode", field)
    for index, item in enumerate(source.get("items") or []):
        at = f"{field}.items[{index}]"
        causes += _path(item, at) + _mode(item, "mode", at)
        of_pod, amount = item.get("fieldRef"), item.get("resourceFieldRef")
        if of_pod is not None and amount is not None:
            message = "fieldRef and resourceFieldRef can not be specified simultaneously"
            causes.append(invalid_value(at, "resource", message))
        elif of_pod is not None:
            causes += _supported(of_pod.get("fieldPath", ""), f"{at}.fieldRef.fieldPath", _FIELDS)
        elif amount is not None:
            if not amount.get("containerName"):
                causes.append(required(f"{at}.resourceFieldRef.containerName"))
            causes += _supported(amount.get("resource", ""), f"{at}.resourceFieldRef.resource", _AMOUNTS)
        else:
            causes.append(required(at, "one of fieldRef and resourceFieldRef is required"))
    return causes


def _projected(source: JsonObject, field: str) -> list[ErrorCause]:
    causes = _mode(source, "defaultMode", field)
    seen: set[str] = set()
    for index, each in enumerate(source.get("sources") or []):
        at = f"{field}.sources[{index}]"
        given = [key for key, inner in each.items() if inner is not None]
        causes += [forbidden_field(f"{at}.{key}", _ONE_TYPE) for key in given[1:]]
        for key in given[:1]:
            inner, paths = each[key], set[str]()
            if key in ("configMap", "secret"):
                if not inner.get("name"):
                    causes.append(required(f"{at}.{key}.name"))
                causes += _files(inner, f"{at}.{key}", paths)
            elif key == "downwardAPI":
                causes += _downward(inner, f"{at}.{key}")
                paths = {item.get("path", "") for item in inner.get("items") or []}
            elif key == "serviceAccountToken":
                causes += _token(inner, f"{at}.{key}")
                paths = {inner.get("path", "")}
            causes += [invalid_value(field, path, _SAME_PATH) for path in sorted(paths & seen) if path]
            seen |= paths
    return causes


def _token(source: JsonObject, field: str) -> list[ErrorCause]:
    causes, seconds = _path(source, field), source.get("expirationSeconds", 0)
    if seconds < _SHORTEST_TOKEN_SECONDS:
        message = "may not specify a duration less than 10 minutes"
        causes.append(invalid_value(f"{field}.expirationSeconds", seconds, message))
    elif seconds > _LONGEST_TOKEN_SECONDS:
        message = "may not specify a duration larger than 2^32 seconds"
        causes.append(invalid_value(f"{field}.expirationSeconds", seconds, message))
    return causes


def _claim(source: JsonObject, field: str) -> list[ErrorCause]:
    return [] if source.get("claimName") else [required(f"{field}.claimName")]


def _empty_dir(source: JsonObject, field: str) -> list[ErrorCause]:
    limit = source.get("sizeLimit")
    if limit is not None and parse_quantity(limit) < 0:
        return [forbidden_field(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _host_path(source: JsonObject, field: str) -> list[ErrorCause]:
    return [] if source.get("path") else [required(f"{field}.path")]


def _mode(source: JsonObject, key: str, field: str) -> list[ErrorCause]:
    mode = source.get(key)
    if mode is not None and not 0 <= mode <= _LARGEST_MODE:
        return [invalid_value(f"{field}.{key}", mode, _MODE_MESSAGE)]
    return []


def _path(item: JsonObject, field: str) -> list[ErrorCause]:
    path = item.get("path", "")
    if not path:
        return [required(f"{field}.path")]
    if path.startswith("/"):
        return [invalid_value(f"{field}.path", path, "must be a relative path")]
    if ".." in path.split("/"):
        return [invalid_value(f"{field}.path", path, "must not contain '..'")]
    if path.startswith(".."):
        return [invalid_value(f"{field}.path", path, "must not start with '..'")]
    return []


def _supported(value: str, field: str, known: Collection[str]) -> list[ErrorCause]:
    if not value:
        return [required(field)]
    resource = re.fullmatch(r"(limits|requests)\.hugepages-.+", value)
    if (
        value in known
        or (known is _FIELDS and _FIELD_KEY.fullmatch(value))
        or (known is _AMOUNTS and resource)
    ):
        return []
    return [not_supported(field, value, tuple(known))]


_SOURCES: dict[str, Callable[[JsonObject, str], list[ErrorCause]]] = {
    "configMap": _named("name"),
    "secret": _named("secretName"),
    "downwardAPI": _downward,
    "projected": _projected,
    "persistentVolumeClaim": _claim,
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
}
