"""OpenAPI v3 of the served kinds: the parts that `kubectl apply` and `kubectl explain` read.

kubectl checks whether PATCH of a kind accepts `fieldValidation` (then it leaves validation to the server), and reads
the schemas for `kubectl explain`. Paths and schemas are generated from the registry and the structural schema; there
are no descriptions.
"""

from __future__ import annotations

from hashlib import sha512
from typing import Any

from pilothouse_simulator.api.discovery import VERSION, resources_of
from pilothouse_simulator.store.schema import (
    DEDUCED,
    ListType,
    MapType,
    SchemaScalar,
    SchemaType,
    Struct,
    go_type_name,
    schema_of,
)
from pilothouse_simulator.values.resources import ResourceType, ResourceTypes

JsonObject = dict[str, Any]

_SCALARS: dict[str, JsonObject] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "time": {"type": "string", "format": "date-time"},
    "micro time": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "quantity": {"type": "string"},
    "any": {"x-kubernetes-int-or-string": True},
}
_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")


def _base(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else "api/v1"


def _bases(types: ResourceTypes) -> dict[str, tuple[str, str]]:
    groups = {"": ("v1",), **types.groups()}
    return {_base(group, version): (group, version) for group in groups for version in groups[group]}


def root(types: ResourceTypes) -> JsonObject:
    """Returns the document of GET /openapi/v3."""
    # The documents change only with the version and with the custom types.
    served = sha512(f"{VERSION['gitVersion']} {types.serial}".encode()).hexdigest().upper()
    return {
        "paths": {base: {"serverRelativeURL": f"/openapi/v3/{base}?hash={served}"} for base in _bases(types)}
    }


def document(types: ResourceTypes, base: str) -> JsonObject | None:
    """Returns the document of GET /openapi/v3/{api/v1, apis/apps/v1 …}; None for a group that is not served."""
    found = _bases(types).get(base)
    return _document(types, *found) if found is not None else None


def _document(types: ResourceTypes, group: str, version: str) -> JsonObject:
    paths: JsonObject = {}
    schemas: JsonObject = {}
    for resource in resources_of(types, group, version):
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        item = f"/{_base(group, version)}{scope}/{resource.plural}/{{name}}"
        kind = {"group": group, "version": version, "kind": resource.kind}
        paths[item] = {"patch": _patch(resource, kind)}
        root_schema = schema_of(resource)
        _add_schema(root_schema, schemas)
        schemas[_schema_name(root_schema)]["x-kubernetes-group-version-kind"] = [kind]
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _patch(resource: ResourceType, kind: JsonObject) -> JsonObject:
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _WRITE_PARAMETERS]
    return {
        "operationId": f"patch{resource.kind}",
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind,
    }


def _schema_name(struct: Struct) -> str:
    return f"io.k8s.api.v1.{go_type_name(struct.name)}"


def _add_schema(struct: Struct, schemas: JsonObject) -> None:
    name = _schema_name(struct)
    if name in schemas:
        return
    properties: JsonObject = {}
    schemas[name] = {"type": "object", "properties": properties}
    for field, kind in struct.fields.items():
        properties[field] = _property(kind, schemas)


def _property(kind: SchemaType, schemas: JsonObject) -> JsonObject:
    if isinstance(kind, SchemaScalar):
        return dict(_SCALARS[kind.kind])
    if isinstance(kind, Struct):
        _add_schema(kind, schemas)
        return {"allOf": [{"$ref": f"#/components/schemas/{_schema_name(kind)}"}]}
    if kind is DEDUCED:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if isinstance(kind, MapType):
        return {"type": "object", "additionalProperties": _property(kind.item, schemas)}
    return _list(kind, schemas)


def _list(kind: ListType, schemas: JsonObject) -> JsonObject:
    schema: JsonObject = {"type": "array", "items": _property(kind.item, schemas)}
    schema["x-kubernetes-list-type"] = kind.relation
    if kind.keys:
        schema["x-kubernetes-list-map-keys"] = list(kind.keys)
    return schema
