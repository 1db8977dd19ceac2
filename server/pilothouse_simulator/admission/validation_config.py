"""Validation of ConfigMaps and Secrets: keys, sizes, types and their keys, and immutable fields."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from pilothouse_simulator.admission.validation_metadata import invalid_value, required, too_long
from pilothouse_simulator.values.api_errors import ErrorCause

JsonObject = dict[str, Any]

LIMIT_BYTES = 1024 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_LIMIT = 253
_KEY_PROBLEM = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
    "(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_FROZEN = "Forbidden: field is immutable when `immutable` is set"
_REQUIRED_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
}
_DOCKER = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")


def validate_config_map(obj: JsonObject) -> list[ErrorCause]:
    """Checks a new or changed ConfigMap."""
    text, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    causes = _validate_keys("data", text) + _validate_keys("binaryData", binary)
    for key in sorted(text.keys() & binary.keys()):
        causes.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
    size = sum(len(value.encode()) for value in text.values())
    size += sum(len(_decoded(value)) for value in binary.values())
    return [*causes, *_validate_size("", size)]


def validate_secret(obj: JsonObject) -> list[ErrorCause]:
    """Checks a new or changed Secret."""
    data = obj.get("data") or {}
    causes = _validate_keys("data", data)
    causes += _validate_size("data", sum(len(_decoded(value)) for value in data.values()))
    type_ = obj.get("type", "")
    causes += [required(f"data[{key}]") for key in _REQUIRED_KEYS.get(type_, ()) if key not in data]
    if type_ == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        causes += [required("data[username]"), required("data[password]")]
    if type_ in _DOCKER:
        (key,) = _REQUIRED_KEYS[type_]
        if key in data and not _is_json(_decoded(data[key])):
            causes.append(
                ErrorCause(
                    "FieldValueInvalid",
                    'Invalid value: "<secret contents redacted>": invalid character in JSON',
                    f"data[{key}]",
                )
            )
    return causes


def config_map_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update does not change an immutable ConfigMap."""
    return _frozen(obj, old, ("data", "binaryData"))


def secret_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update changes neither the type of a Secret nor the data of an immutable one."""
    causes = []
    if obj.get("type") != old.get("type"):
        causes.append(invalid_value("type", obj.get("type"), "field is immutable"))
    return causes + _frozen(obj, old, ("data",))


def take_over_string_data(obj: JsonObject) -> None:
    """Moves the values of `stringData`, a write-only field, to `data` in place."""
    texts = obj.pop("stringData", None)
    if texts:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _frozen(obj: JsonObject, old: JsonObject, fields: tuple[str, ...]) -> list[ErrorCause]:
    if not old.get("immutable"):
        return []
    causes = []
    if not obj.get("immutable"):
        causes.append(ErrorCause("FieldValueForbidden", _FROZEN, "immutable"))
    causes += [
        ErrorCause("FieldValueForbidden", _FROZEN, field)
        for field in fields
        if (obj.get(field) or {}) != (old.get(field) or {})
    ]
    return causes


def _validate_keys(field: str, values: JsonObject) -> list[ErrorCause]:
    causes = []
    for key in sorted(values):
        if key == "." or key == "..":
            causes.append(invalid_value(f"{field}[{key}]", key, f"must not be '{key}'"))
        elif key.startswith(".."):
            causes.append(invalid_value(f"{field}[{key}]", key, "must not start with '..'"))
        elif len(key) > _KEY_LIMIT:
            causes.append(
                invalid_value(f"{field}[{key}]", key, f"must be no more than {_KEY_LIMIT} characters")
            )
        elif not _KEY.fullmatch(key):
            causes.append(invalid_value(f"{field}[{key}]", key, _KEY_PROBLEM))
    return causes


def _validate_size(field: str, size: int) -> list[ErrorCause]:
    return [too_long(field or "[]", LIMIT_BYTES)] if size > LIMIT_BYTES else []


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _is_json(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value), dict)
    except ValueError:
        return False
