"""Converts an OpenAPI or JSON Schema document to compact definitions (`definitions`).

Types, names, required fields and enums are converted. Patterns, formats and CEL are left out: matching a pattern from a
cluster can take any amount of time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SCALARS = ("string", "integer", "number", "boolean")
_REFERENCE = re.compile(r"(?:/api/_definitions\.json)?#/(?:\$defs|definitions|components/schemas)/([^/]+)")


def definitions_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the definitions of an OpenAPI or JSON Schema document by name (`pilothouse_manifests.schemas`).

    References to definitions of the same document are kept; any other reference becomes the type `any`.
    """
    components = document.get("components", {})
    found = document.get("$defs") or document.get("definitions") or components.get("schemas") or {}
    return {name: _definition(node) for name, node in found.items()}


def _definition(node: Mapping[str, Any]) -> Any:
    if "properties" not in node:
        return _type(node)
    definition: dict[str, Any] = {
        "fields": {name: _type(inner) for name, inner in node["properties"].items()}
    }
    if node.get("required"):
        definition["required"] = sorted(node["required"])
    kinds = node.get("x-kubernetes-group-version-kind", ())
    if len(kinds) == 1:
        (kind,) = kinds
        group = f"{kind['group']}/" if kind["group"] else ""
        definition["kind"] = f"{group}{kind['version']} {kind['kind']}"
    return definition


def _type(node: Mapping[str, Any]) -> str | list[Any]:
    if (inner := node.get("allOf")) and len(inner) == 1:
        node = {**node, **inner[0]}
    if "$ref" in node:
        found = _REFERENCE.fullmatch(node["$ref"])
        return f"#{found[1]}" if found else "any"
    choices = node.get("oneOf") or node.get("anyOf")
    if choices:
        words = sorted({str(_type(choice)) for choice in choices})
        return "|".join(words) if all(word in _SCALARS for word in words) else "any"
    if "enum" in node and all(isinstance(word, str) for word in node["enum"]):
        return ["enum", *node["enum"]]
    kinds = node.get("type", "any")
    kind = next((each for each in kinds if each != "null"), "any") if isinstance(kinds, list) else kinds
    if kind == "array":
        return ["array", _type(node.get("items", {}))]
    values = node.get("additionalProperties")
    if kind == "object":
        return ["map", _type(values)] if isinstance(values, dict) else "any"
    return kind if kind in _SCALARS else "any"
