"""OpenAPI v3 of the served kinds: the part that kubectl reads before it applies or explains.

kubectl looks whether PATCH of a kind takes `fieldValidation` (then it leaves validation to the server), and reads
the schemas for `kubectl explain`. Paths and schemas follow from the registry and the structural schema; there are
no descriptions.
"""

from __future__ import annotations

from hashlib import sha512
from typing import Any

from pilothouse_simulator.api.discovery import VERSION, resources_of, version_of
from pilothouse_simulator.store.schema import (
    ListType,
    MapType,
    SchemaScalar,
    SchemaType,
    Struct,
    go_type_name,
    schema_of,
)
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]

_GROUPS = ("", "apps", "autoscaling", "batch", "coordination.k8s.io", "discovery.k8s.io", "storage.k8s.io")
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


def _base(group: str) -> str:
    return f"apis/{group}/{version_of(group)}" if group else "api/v1"


def root() -> JsonObject:
    """GET /openapi/v3."""
    # The documents change with the version alone.
    served = sha512(VERSION["gitVersion"].encode()).hexdigest().upper()
    return {
        "paths": {
            _base(group): {"serverRelativeURL": f"/openapi/v3/{_base(group)}?hash={served}"}
            for group in _GROUPS
        }
    }


def document(base: str) -> JsonObject | None:
    """GET /openapi/v3/{api/v1, apis/apps/v1 …}; None for a group that is not served."""
    for group in _GROUPS:
        if _base(group) == base:
            return _document(group)
    return None


def _document(group: str) -> JsonObject:
    paths: JsonObject = {}
    schemas: JsonObject = {}
    for resource in resources_of(group):
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        item = f"/{_base(group)}{scope}/{resource.plural}/{{name}}"
        paths[item] = {"patch": _patch(resource)}
        root_schema = schema_of(resource)
        _add_schema(root_schema, schemas)
        schemas[_schema_name(root_schema)]["x-kubernetes-group-version-kind"] = [_kind(resource)]
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _kind(resource: ResourceType) -> JsonObject:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _patch(resource: ResourceType) -> JsonObject:
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _WRITE_PARAMETERS]
    return {
        "operationId": f"patch{resource.kind}",
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": _kind(resource),
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
    if isinstance(kind, MapType):
        return {"type": "object", "additionalProperties": _property(kind.item, schemas)}
    return _list(kind, schemas)


def _list(kind: ListType, schemas: JsonObject) -> JsonObject:
    schema: JsonObject = {"type": "array", "items": _property(kind.item, schemas)}
    schema["x-kubernetes-list-type"] = kind.relation
    if kind.keys:
        schema["x-kubernetes-list-map-keys"] = list(kind.keys)
    return schema
