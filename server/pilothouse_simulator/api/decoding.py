"""Decoding of request bodies: JSON or YAML, duplicate and unknown fields, wrong types.

The real server decodes a body into Go structs, which has observable effects on a document. This module produces the
same effects from the schema: unknown fields are dropped (with a warning, or refused, depending on `fieldValidation`), a
value of the wrong type is refused with 400, nulls are removed. Server-side apply checks the same schema more strictly;
the real server returns these refusals as 500 without a reason.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import orjson
import yaml

from pilothouse_simulator.store.field_sets import describe, item_key
from pilothouse_simulator.store.schema import (
    ListType,
    MapType,
    SchemaScalar,
    SchemaType,
    Struct,
    go_type_name,
    schema_of,
)
from pilothouse_simulator.store.structural import prune
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.quantities import canonical_quantity, is_quantity
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]

_HEAD = ("apiVersion", "kind", "metadata")
BODY_LIMIT_BYTES = 3 * 1024 * 1024
_QUANTITY_MESSAGE = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_INT32_EXCEPTIONS = frozenset({
    "generation", "observedGeneration", "terminationGracePeriodSeconds", "deletionGracePeriodSeconds",
    "activeDeadlineSeconds", "runAsUser", "runAsGroup", "fsGroup", "tolerationSeconds", "expirationSeconds",
})  # fmt: skip


class _DuplicateTracker:
    """Loads JSON and records duplicate keys with their paths."""

    def __init__(self) -> None:
        self.duplicates: list[tuple[JsonObject, str]] = []

    def pairs(self, pairs: list[tuple[str, Any]]) -> JsonObject:
        result: JsonObject = {}
        for name, value in pairs:
            if name in result:
                self.duplicates.append((result, name))
            result[name] = value
        return result

    def paths(self, document: Any) -> list[str]:
        found: list[str] = []

        def walk(node: Any, path: str) -> None:
            if isinstance(node, dict):
                found.extend(_join(path, name) for owner, name in self.duplicates if owner is node)
                for name, child in node.items():
                    walk(child, _join(path, name))
            elif isinstance(node, list):
                for index, child in enumerate(node):
                    walk(child, f"{path}[{index}]")

        walk(document, "")
        return found


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def parse_yaml(body: bytes) -> Any:
    """Returns a YAML (or JSON) document. Raises 400 if it cannot be parsed."""
    with suppress(ValueError):
        # Most clients send JSON, which the JSON parser reads a hundred times faster.
        return orjson.loads(body)
    try:
        return yaml.load(body, Loader=_JsonLikeLoader)  # noqa: S506 - a SafeLoader subclass
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or "did not find expected node content"
        raise api_errors.bad_request(
            f"error decoding YAML: error converting YAML to JSON: yaml: line {line}: {problem}"
        ) from error


class _JsonLikeLoader(yaml.SafeLoader):
    """YAML without the implicit types that JSON lacks (dates stay text)."""


_JsonLikeLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_object(body: bytes, content_type: str, kind: str) -> tuple[JsonObject, list[str]]:
    """Returns the body of POST and PUT, and the paths of duplicate fields. Raises 400 and 415 like the real server."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/yaml":
        document = parse_yaml(body)
        duplicates: list[str] = []
    elif media_type in ("application/json", ""):
        tracker = _DuplicateTracker()
        try:
            document = json.loads(body, object_pairs_hook=tracker.pairs)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            shown = body[:30].decode("utf-8", "replace") + " ..." if body else "<empty>"
            raise api_errors.bad_request(
                f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
                f"json parse error: unexpected end of JSON input ({shown})"
            ) from error
        duplicates = tracker.paths(document)
    else:
        raise api_errors.failure(
            415,
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            "UnsupportedMediaType",
        )
    if not isinstance(document, dict):
        raise api_errors.bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
            "json parse error: json: cannot unmarshal into Go value of type struct"
        )
    return document, duplicates


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


class _TypeMismatchError(Exception):
    pass


def convert(resource: ResourceType, document: JsonObject) -> tuple[JsonObject, list[str]]:
    """Returns the document as the kind's struct holds it, and the paths of unknown fields. Raises 400 for a wrong type.

    A custom resource is pruned; its types are checked with the rest of its schema, when it is stored.
    """
    unknown: list[str] = []
    if resource.custom is not None:
        return _convert_custom(resource, document, unknown), unknown
    try:
        converted = _convert(schema_of(resource), document, "", resource.kind, unknown)
    except _TypeMismatchError as error:
        raise api_errors.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {error}'
        ) from error
    result: JsonObject = converted
    return result, unknown


def _convert_custom(resource: ResourceType, document: JsonObject, unknown: list[str]) -> JsonObject:
    assert resource.custom is not None
    converted: JsonObject = {name: document[name] for name in ("apiVersion", "kind") if document.get(name)}
    if document.get("metadata") is not None:
        kind = schema_of(resource).fields["metadata"]
        try:
            metadata = _convert(kind, document["metadata"], "metadata", resource.kind, unknown)
        except _TypeMismatchError as error:
            raise api_errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {error}'
            ) from error
        converted["metadata"] = metadata
    rest = {name: value for name, value in document.items() if name not in _HEAD}
    pruned: JsonObject = prune(resource.custom.schema, rest, "", unknown)
    return converted | pruned


def _convert(kind: SchemaType, value: Any, path: str, owner: str, unknown: list[str]) -> Any:
    if value is None:
        return None
    if isinstance(kind, SchemaScalar):
        return _convert_scalar(kind, value, path, owner)
    if isinstance(kind, ListType):
        _expect(isinstance(value, list), value, path, owner, "[]" + _type_name(kind.item))
        return [
            _convert(kind.item, item, f"{path}[{index}]", owner, unknown) for index, item in enumerate(value)
        ]
    _expect(isinstance(value, dict), value, path, owner, _type_name(kind))
    if isinstance(kind, MapType):
        converted_map = {
            name: _convert(kind.item, child, _join(path, name), owner, unknown)
            for name, child in value.items()
        }
        # A null in a map of strings becomes the empty string, as in a Go map.
        return {name: "" if child is None else child for name, child in converted_map.items()}
    result: JsonObject = {}
    for name, child in value.items():
        child_path = _join(path, name)
        if name not in kind.fields:
            unknown.append(child_path)
            continue
        converted = _convert(kind.fields[name], child, child_path, go_type_name(kind.name), unknown)
        if converted is not None:
            result[name] = converted
    return result


def _type_name(kind: SchemaType) -> str:
    if isinstance(kind, Struct):
        return f"v1.{go_type_name(kind.name)}"
    if isinstance(kind, MapType):
        return f"map[string]{_type_name(kind.item)}"
    if isinstance(kind, ListType):
        return f"[]{_type_name(kind.item)}"
    return {"str": "string", "int": "int32", "float": "float64"}.get(kind.kind, kind.kind)


def _expect(holds: bool, value: Any, path: str, owner: str, expected: str) -> None:
    if not holds:
        raise _TypeMismatchError(
            f"json: cannot unmarshal {_json_kind(value)} into Go struct field {owner}.{path} of type {expected}"
        )


def _convert_scalar(kind: SchemaScalar, value: Any, path: str, owner: str) -> Any:
    if kind.kind == "any":
        return value
    if kind.kind == "quantity":
        text = str(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not is_quantity(text):
            raise _TypeMismatchError(_QUANTITY_MESSAGE)
        return canonical_quantity(text)
    if kind.kind == "bytes":
        _expect(isinstance(value, str), value, path, owner, "[]uint8")
        _check_base64(value)
    elif kind.kind in ("str", "time", "micro time"):
        _expect(isinstance(value, str), value, path, owner, "string")
        if kind.kind == "micro time" and not _MICRO_TIME.fullmatch(value):
            raise _TypeMismatchError(
                f'parsing time "{value}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse'
            )
    elif kind.kind == "bool":
        _expect(isinstance(value, bool), value, path, owner, "bool")
    elif kind.kind == "int":
        name = path.rpartition(".")[2]
        expected = "int64" if name in _INT32_EXCEPTIONS else "int32"
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        _expect(whole and not isinstance(value, bool), value, path, owner, expected)
        return int(value)
    elif kind.kind == "float":
        _expect(isinstance(value, int | float) and not isinstance(value, bool), value, path, owner, "float64")
    return value


def _check_base64(text: str) -> None:
    # Line ends are ignored in the data, but count as bytes.
    good = _BASE64.match(text.replace("\r", "A").replace("\n", "A"))
    end = good.end() if good is not None else 0
    if end < len(text):
        raise _TypeMismatchError(f"illegal base64 data at input byte {end}")
    rest = len(text.replace("\r", "").replace("\n", "")) % 4
    if rest:
        raise _TypeMismatchError(f"illegal base64 data at input byte {len(text) - rest}")


def check_applied(resource: ResourceType, document: JsonObject, label: str) -> None:
    """Checks an applied configuration as server-side apply does: unknown fields, types, duplicate list keys.

    Raises 500 without a reason, like the real server; `label` is its name for the object in the message.
    """
    problem = _applied_problem(schema_of(resource), document, ())
    if problem:
        raise api_errors.internal_error(f"failed to create typed patch object ({label}): {problem}")
    if resource.custom is not None:
        return
    try:
        _convert(schema_of(resource), document, "", resource.kind, [])
    except _TypeMismatchError as error:
        group_kind = f"{resource.group or ''}/{resource.version}, Kind={resource.kind}"
        words = (
            f"error decoding from json: {error}" if str(error).startswith("illegal base64") else str(error)
        )
        raise api_errors.internal_error(
            f"failed to convert new object ({label}) to proper version: unable to convert unstructured object "
            f"to {group_kind}: {words}"
        ) from error


def _applied_problem(kind: SchemaType, value: Any, path: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    if isinstance(kind, SchemaScalar):
        return _applied_scalar_problem(kind, value, path)
    if isinstance(kind, ListType):
        return _applied_list_problem(kind, value, path)
    if not isinstance(value, dict):
        deduced = isinstance(kind, MapType) and kind.deduced
        return None if deduced else f"{describe(path)}: expected map, got {_go_value(value)}"
    if isinstance(kind, Struct):
        for name in value:
            if name not in kind.fields:
                return f"{describe((*path, 'f:' + name))}: field not declared in schema"
    problems = (
        _applied_problem(
            kind.fields[name] if isinstance(kind, Struct) else kind.item, child, (*path, "f:" + name)
        )
        for name, child in value.items()
    )
    return next(filter(None, problems), None)


def _applied_list_problem(kind: ListType, value: Any, path: tuple[str, ...]) -> str | None:
    if not isinstance(value, list):
        return f"{describe(path)}: expected list, got {_go_value(value)}"
    seen: set[str] = set()
    for index, item in enumerate(value):
        element = f"v:{index}" if kind.relation == "atomic" else item_key(kind, item)
        if element in seen:
            return f"{describe(path)}: duplicate entries for key {describe((element,))}"
        seen.add(element)
        problem = _applied_problem(kind.item, item, (*path, element))
        if problem:
            return problem
    return None


def _go_value(value: Any) -> str:
    return f"&value.valueUnstructured{{Value:{value}}}"


def _applied_scalar_problem(kind: SchemaScalar, value: Any, path: tuple[str, ...]) -> str | None:
    expected = None
    if kind.kind in ("str", "time", "micro time", "bytes") and not isinstance(value, str):
        expected = "string"
    elif kind.kind == "bool" and not isinstance(value, bool):
        expected = "boolean"
    elif kind.kind in ("int", "float") and (isinstance(value, bool) or not isinstance(value, int | float)):
        expected = "numeric (int or float)"
    return f"{describe(path)}: expected {expected}, got {_go_value(value)}" if expected else None
