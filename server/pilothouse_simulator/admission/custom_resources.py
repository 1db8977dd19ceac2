"""Defaults and checks of custom resources and of their definitions.

Refusals by schema and by CEL rules follow recording 31, and otherwise
`apiextensions-apiserver/pkg/apiserver/validation` with `k8s.io/kube-openapi/pkg/validation`. If a value has the wrong
type, is too long or is missing, the rules are not run, and the server reports that they were not checked. A definition
gets only the checks that wrong definitions fail most often (`pkg/apis/apiextensions/validation`).
"""

from __future__ import annotations

import json
import re
from typing import Any

from pilothouse_simulator.admission.cel import ExpressionError, UnsupportedRuleError, compile_rule
from pilothouse_simulator.admission.validation_metadata import invalid_value, not_supported, required
from pilothouse_simulator.store.custom_types import storage_version
from pilothouse_simulator.store.structural import fill_defaults
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]

_HEAD = frozenset({"apiVersion", "kind", "metadata"})
_BLOCKING = frozenset({
    "FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid",
})  # fmt: skip
_NOT_CHECKED = ErrorCause(
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
    "<nil>",
)


def apply_custom_defaults(resource: ResourceType, obj: JsonObject) -> None:
    """Fills the defaults of a custom resource in place, also those of its status."""
    if resource.custom is not None:
        fill_defaults(resource.custom.schema, obj)


def validate_custom(
    resource: ResourceType, obj: JsonObject, old: JsonObject | None = None
) -> list[ErrorCause]:
    """Checks a custom resource; `old` is its former version."""
    if resource.custom is None:
        return []
    schema = resource.custom.schema
    body = {name: value for name, value in obj.items() if name not in _HEAD}
    declared = {
        **schema,
        "required": [name for name in schema.get("required") or () if name not in _HEAD],
        "properties": {
            name: entry for name, entry in (schema.get("properties") or {}).items() if name not in _HEAD
        },
    }
    causes = _checked(declared, body, "")
    if any(cause.reason in _BLOCKING for cause in causes):
        return [*causes, _NOT_CHECKED] if _has_rules(schema) else causes
    return causes + _by_rules(schema, obj, old, "")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _checked(schema: JsonObject, value: Any, path: str) -> list[ErrorCause]:
    if value is None and schema.get("nullable"):
        return []
    problem = _type_problem(schema, value, path)
    if problem is not None:
        return [problem]
    causes: list[ErrorCause] = []
    if "enum" in schema and value not in schema["enum"]:
        supported = tuple(str(entry) for entry in schema["enum"])
        causes.append(not_supported(path, value, supported))
    if isinstance(value, str):
        causes += _checked_text(schema, value, path)
    elif isinstance(value, list):
        causes += _checked_list(schema, value, path)
    elif isinstance(value, dict):
        causes += _checked_object(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        causes += _checked_number(schema, value, path)
    return causes + _combined(schema, value, path)


def _type_problem(schema: JsonObject, value: Any, path: str) -> ErrorCause | None:
    if schema.get("x-kubernetes-int-or-string"):
        good = isinstance(value, int | str) and not isinstance(value, bool)
        wanted = "integer,string"
    else:
        wanted = schema.get("type", "")
        good = {
            "string": isinstance(value, str),
            "boolean": isinstance(value, bool),
            "integer": isinstance(value, int) and not isinstance(value, bool),
            "number": isinstance(value, int | float) and not isinstance(value, bool),
            "array": isinstance(value, list),
            "object": isinstance(value, dict),
        }.get(wanted, True)
    if good:
        return None
    shown = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    name = shown.get(type(value), "null")
    return ErrorCause(
        "FieldValueTypeInvalid",
        f'Invalid value: "{name}": {path} in body must be of type {wanted}: "{name}"',
        path,
    )


def _checked_text(schema: JsonObject, value: str, path: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    longest, shortest, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if longest is not None and len(value) > longest:
        causes.append(
            ErrorCause("FieldValueTooLong", f"Too long: may not be more than {longest} bytes", path)
        )
    if shortest is not None and len(value) < shortest:
        causes.append(invalid_value(path, value, f"{path} in body should be at least {shortest} chars long"))
    if pattern is not None and re.search(pattern, value) is None:
        causes.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    return causes


def _checked_number(schema: JsonObject, value: float, path: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and value < least:
        causes.append(
            invalid_value(path, value, f"{path} in body should be greater than or equal to {least:g}")
        )
    if most is not None and value > most:
        causes.append(invalid_value(path, value, f"{path} in body should be less than or equal to {most:g}"))
    return causes


def _checked_list(schema: JsonObject, value: list[Any], path: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        message = f"Too many: {len(value)}: must have at most {most} items"
        causes.append(ErrorCause("FieldValueTooMany", message, path))
    if least is not None and len(value) < least:
        causes.append(invalid_value(path, len(value), f"{path} in body should have at least {least} items"))
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    unique = schema.get("x-kubernetes-list-type") in ("map", "set")
    seen: list[Any] = []
    for index, item in enumerate(value):
        inner = f"{path}[{index}]"
        causes += _checked(schema.get("items") or {}, item, inner)
        mark = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
        if unique and mark in seen:
            shown = json.dumps(mark, separators=(",", ":"))
            causes.append(ErrorCause("FieldValueDuplicate", f"Duplicate value: {shown}", inner))
        seen.append(mark)
    return causes


def _checked_object(schema: JsonObject, value: JsonObject, path: str) -> list[ErrorCause]:
    causes = [required(_join(path, name)) for name in schema.get("required") or () if name not in value]
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    for name, child in value.items():
        declared = properties.get(name, additional if isinstance(additional, dict) else None)
        if declared is not None:
            causes += _checked(declared, child, _join(path, name))
    most = schema.get("maxProperties")
    if most is not None and len(value) > most:
        message = f"Too many: {len(value)}: must have at most {most} items"
        causes.append(ErrorCause("FieldValueTooMany", message, path))
    return causes


def _combined(schema: JsonObject, value: Any, path: str) -> list[ErrorCause]:
    causes = [cause for part in schema.get("allOf") or () for cause in _checked(part, value, path)]
    for word, label in (
        ("anyOf", "at least one schema (anyOf)"),
        ("oneOf", "one and only one schema (oneOf)"),
    ):
        parts = schema.get(word) or ()
        fitting = sum(not _checked(part, value, path) for part in parts)
        if parts and (fitting == 0 or (word == "oneOf" and fitting > 1)):
            causes.append(
                ErrorCause("FieldValueInvalid", f'Invalid value: "": "{path}" must validate {label}', path)
            )
    if schema.get("not") and not _checked(schema["not"], value, path):
        message = f'Invalid value: "": "{path}" must not validate the schema (not)'
        causes.append(ErrorCause("FieldValueInvalid", message, path))
    return causes


def _has_rules(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "x-kubernetes-validations" in schema or any(_has_rules(child) for child in schema.values())
    return isinstance(schema, list) and any(_has_rules(child) for child in schema)


def _by_rules(schema: JsonObject, value: Any, old: Any, path: str) -> list[ErrorCause]:
    """Checks the rules of a value and of all values below it.

    Rules about `oldSelf` apply only to values that existed before.
    """
    causes: list[ErrorCause] = []
    for rule in schema.get("x-kubernetes-validations") or ():
        if old is None and "oldSelf" in rule["rule"]:
            continue
        message = _broken_rule(rule, value, old)
        if message is not None:
            causes.append(ErrorCause("FieldValueInvalid", f"Invalid value: {message}", path or "<nil>"))
    if isinstance(value, list):
        items = schema.get("items") or {}
        for index, item in enumerate(value):
            causes += _by_rules(items, item, None, f"{path}[{index}]")
    elif isinstance(value, dict):
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        before = old if isinstance(old, dict) else {}
        for name, child in value.items():
            declared = properties.get(name, additional if isinstance(additional, dict) else None)
            if declared is not None:
                causes += _by_rules(declared, child, before.get(name), _join(path, name))
    return causes


def _broken_rule(rule: JsonObject, value: Any, old: Any) -> str | None:
    """Returns why the value breaks the rule, or None. A rule that cannot be compiled here is skipped."""
    names = {"self": value, "oldSelf": old}
    try:
        if compile_rule(rule["rule"])(names):
            return None
        if rule.get("messageExpression"):
            return str(compile_rule(rule["messageExpression"])(names))
    except UnsupportedRuleError:
        return None
    except ExpressionError as error:
        return f"rule evaluation error: {error}"
    return rule.get("message") or f"failed rule: {rule['rule']}"


def default_definition(obj: JsonObject) -> None:
    """Fills the defaults of a CustomResourceDefinition in place."""
    names = obj.setdefault("spec", {}).setdefault("names", {})
    if not names.get("singular"):
        names["singular"] = str(names.get("kind", "")).lower()
    if not names.get("listKind") and names.get("kind"):
        names["listKind"] = f"{names['kind']}List"
    obj["spec"].setdefault("conversion", {"strategy": "None"})
    if obj["spec"].get("versions"):
        stored = {"storedVersions": [storage_version(obj)["name"]]}
        obj.setdefault("status", {"acceptedNames": {"kind": "", "plural": ""}, "conditions": None} | stored)


def validate_definition(obj: JsonObject) -> list[ErrorCause]:
    """Checks the names, the group, the scope and the versions of a definition."""
    spec = obj["spec"]
    names, versions = spec["names"], spec.get("versions") or []
    causes: list[ErrorCause] = []
    wanted = f"{names.get('plural', '')}.{spec.get('group', '')}"
    if obj["metadata"].get("name") != wanted:
        message = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", obj["metadata"].get("name"), message))
    causes += [required(f"spec.names.{name}") for name in ("plural", "kind") if not names.get(name)]
    if not spec.get("group"):
        causes.append(required("spec.group"))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        causes.append(not_supported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced")))
    if sum(bool(entry.get("storage")) for entry in versions) != 1:
        message = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", [entry.get("name") for entry in versions], message))
    for index, entry in enumerate(versions):
        if not (entry.get("schema") or {}).get("openAPIV3Schema"):
            causes.append(required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
    return causes
