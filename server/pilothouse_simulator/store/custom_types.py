"""Custom resources: the resource type and the structural schema that follow from a CustomResourceDefinition.

A definition becomes a `ResourceType` with a `CustomDefinition`, found under each version that it serves. Objects are
stored in the storage version; the schema of that version applies to all of them, as with the conversion strategy
`None`. The merge rules of an `openAPIV3Schema` follow Kubernetes' structural schemas
(`apiextensions-apiserver/pkg/apiserver/schema`): `x-kubernetes-list-type`, `-list-map-keys`, `-map-type`,
`-preserve-unknown-fields`, `-int-or-string`, `-embedded-resource`.

Not simulated: the subresource `scale`, conversion by webhook, and changed names or subresources of a served definition.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

from pilothouse_simulator.store.schema import (
    DEDUCED,
    ListType,
    MapType,
    SchemaScalar,
    SchemaType,
    Struct,
    struct,
)
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import (
    STATUS_VERBS,
    CustomDefinition,
    ResourceType,
    ResourceTypes,
    Subresource,
)

JsonObject = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_EMBEDDED = "x-kubernetes-embedded-resource"
_ANY = SchemaScalar("any")
_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


def storage_version(definition: JsonObject) -> JsonObject:
    """Returns the version in which the objects of a definition are stored."""
    versions: list[JsonObject] = definition["spec"]["versions"]
    return next((entry for entry in versions if entry.get("storage")), versions[0])


def serve(types: ResourceTypes, definition: JsonObject) -> ResourceType:
    """Adds the kind of a definition to `types`, or updates the kind that is already served."""
    spec = definition["spec"]
    stored = storage_version(definition)
    schema = (stored.get("schema") or {}).get("openAPIV3Schema") or {"type": "object", PRESERVE: True}
    columns = tuple(stored.get("additionalPrinterColumns") or ())
    versions = tuple(entry["name"] for entry in spec["versions"] if entry.get("served"))
    names = spec["names"]
    known = types.custom(spec["group"], names["plural"])
    custom = CustomDefinition(_root(names["kind"], schema), schema, columns, versions)
    if known is not None and known.custom is not None:
        known.custom.structure, known.custom.schema = custom.structure, schema
        known.custom.columns, known.custom.versions = columns, versions
        types.serial += 1
        return known
    kind = names["kind"]
    hashed = sha256(f"{spec['group']}/{stored['name']}/{kind}".encode()).digest()[:8]
    has_status = "status" in (stored.get("subresources") or {})
    resource = ResourceType(
        spec["group"],
        stored["name"],
        names["plural"],
        kind,
        namespaced=spec["scope"] == "Namespaced",
        singular=names.get("singular") or kind.lower(),
        subresource_types=(Subresource("status", kind, STATUS_VERBS),) if has_status else (),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        verbs=_VERBS,
        has_generation=True,
        unconditional_update=False,
        storage_version_hash=base64.b64encode(hashed).decode(),
        custom=custom,
    )
    types.add(resource)
    return resource


def _root(kind: str, schema: JsonObject) -> SchemaType:
    structure = _structure(schema, kind)
    if isinstance(structure, MapType):
        structure = Struct(kind, fields=dict.fromkeys(("spec", "status"), DEDUCED))
    assert isinstance(structure, Struct)
    text = SchemaScalar("str")
    structure.fields |= {"apiVersion": text, "kind": text, "metadata": struct("V1ObjectMeta")}
    return structure


def _structure(schema: JsonObject, path: str) -> SchemaType:
    if schema.get(_INT_OR_STRING):
        return _ANY
    kind = schema.get("type")
    if kind == "array":
        return _list(schema, path)
    if kind != "object":
        return SchemaScalar(_SCALARS.get(kind or "", "any"))
    atomic = schema.get("x-kubernetes-map-type") == "atomic"
    properties, additional = schema.get("properties"), schema.get("additionalProperties")
    if schema.get(PRESERVE) or schema.get(_EMBEDDED) or additional is True:
        return DEDUCED
    if isinstance(additional, dict):
        return MapType(_structure(additional, f"{path}.*"), atomic)
    fields = {name: _structure(entry, f"{path}.{name}") for name, entry in (properties or {}).items()}
    defaults = {
        name: copy_json(entry["default"])
        for name, entry in (properties or {}).items()
        if entry.get("default") is not None
    }
    return Struct(path, atomic, fields, defaults)


def _list(schema: JsonObject, path: str) -> ListType:
    item = _structure(schema.get("items") or {}, path)
    relation = schema.get("x-kubernetes-list-type", "atomic")
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    return ListType(item, relation, keys)
