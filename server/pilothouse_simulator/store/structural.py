"""Pruning and defaulting of custom resources by their `openAPIV3Schema`.

As in `apiextensions-apiserver/pkg/apiserver/schema`: a field that the schema does not declare is dropped, unless its
object preserves unknown fields; a missing field gets its default; a null is dropped unless the field is nullable.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.values.json_copy import copy_json

JsonObject = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_HEAD = frozenset({"apiVersion", "kind", "metadata"})


def prune(schema: JsonObject, value: Any, path: str, unknown: list[str]) -> Any:
    """Returns the value without undeclared fields and forbidden nulls; adds the paths of undeclared fields to
    `unknown`.
    """
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [prune(items, item, f"{path}[{index}]", unknown) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    free = schema.get(_PRESERVE) or additional is True
    result: JsonObject = {}
    for name, child in value.items():
        inner = f"{path}.{name}" if path else name
        declared = properties.get(name, additional if isinstance(additional, dict) else None)
        if declared is None and (free or (schema.get(_EMBEDDED) and name in _HEAD)):
            result[name] = child
        elif declared is None:
            unknown.append(inner)
        elif child is not None or declared.get("nullable"):
            result[name] = prune(declared, child, inner, unknown)
    return result


def fill_defaults(schema: JsonObject, value: Any) -> None:
    """Fills the defaults of the schema in place."""
    if isinstance(value, list):
        for item in value:
            fill_defaults(schema.get("items") or {}, item)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    for name, declared in properties.items():
        if (
            "default" in declared
            and value.get(name) is None
            and not (declared.get("nullable") and name in value)
        ):
            value[name] = copy_json(declared["default"])
        if name in value:
            fill_defaults(declared, value[name])
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for name, child in value.items():
            if name not in properties:
                fill_defaults(additional, child)
