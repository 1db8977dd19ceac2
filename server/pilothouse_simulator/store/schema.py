"""The structural schema of all served kinds: field types, and how lists and maps are merged.

Field names and types come from `schema_types.json` (see `schema_build`). The behaviour of lists and maps in server-side
apply (`x-kubernetes-list-type`, `-list-map-keys`, `-map-type`) is not in those models and is defined here. Lists that
are not named below are atomic; maps and structs that are not named are granular. KEY_DEFAULTS has the defaults of list
keys in the real schema (the protocol of a port).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pilothouse_simulator.values.resources import ResourceType

TYPES_FILE = Path(__file__).with_name("schema_types.json")


@dataclass(frozen=True, eq=False)
class SchemaScalar:
    """A primitive: `str`, `int`, `bool`, `float`, `any`, `time`, `micro time`, `quantity`."""

    kind: str


@dataclass(eq=False)
class MapType:
    """A map from strings to values of one type. If `deduced`, the value may also be a list or a scalar."""

    item: SchemaType
    atomic: bool = False
    deduced: bool = False


@dataclass(frozen=True, eq=False)
class ListType:
    """A list; `keys` identify an item of a `map` list."""

    item: SchemaType
    relation: Literal["atomic", "set", "map"] = "atomic"
    keys: tuple[str, ...] = ()


@dataclass(eq=False)
class Struct:
    """Named fields.

    An `atomic` struct is owned as a whole. `defaults` are those of a custom resource, for list keys.
    """

    name: str
    atomic: bool = False
    fields: dict[str, SchemaType] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)


SchemaType = SchemaScalar | MapType | ListType | Struct
# A value without a schema: maps are granular, lists and scalars are owned as a whole.
DEDUCED = MapType(SchemaScalar("any"), deduced=True)
DEDUCED.item = DEDUCED

LIST_KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("V1PodSpec", "containers"): ("name",),
    ("V1PodSpec", "initContainers"): ("name",),
    ("V1PodSpec", "ephemeralContainers"): ("name",),
    ("V1PodSpec", "hostAliases"): ("ip",),
    ("V1PodSpec", "imagePullSecrets"): ("name",),
    ("V1PodSpec", "resourceClaims"): ("name",),
    ("V1PodSpec", "schedulingGates"): ("name",),
    ("V1PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("V1PodSpec", "volumes"): ("name",),
    ("V1Container", "env"): ("name",),
    ("V1Container", "ports"): ("containerPort", "protocol"),
    ("V1Container", "volumeDevices"): ("devicePath",),
    ("V1Container", "volumeMounts"): ("mountPath",),
    ("V1EphemeralContainer", "env"): ("name",),
    ("V1EphemeralContainer", "ports"): ("containerPort", "protocol"),
    ("V1EphemeralContainer", "volumeDevices"): ("devicePath",),
    ("V1EphemeralContainer", "volumeMounts"): ("mountPath",),
    ("V1ResourceRequirements", "claims"): ("name",),
    ("V1PodStatus", "conditions"): ("type",),
    ("V1PodStatus", "podIPs"): ("ip",),
    ("V1PodStatus", "resourceClaimStatuses"): ("name",),
    ("V1ContainerStatus", "volumeMounts"): ("mountPath",),
    ("V1DeploymentStatus", "conditions"): ("type",),
    ("V1ReplicaSetStatus", "conditions"): ("type",),
    ("V1StatefulSetStatus", "conditions"): ("type",),
    ("V1DaemonSetStatus", "conditions"): ("type",),
    ("V1NamespaceStatus", "conditions"): ("type",),
    ("V1NodeStatus", "conditions"): ("type",),
    ("V1NodeStatus", "addresses"): ("type",),
    ("V1PersistentVolumeClaimStatus", "conditions"): ("type",),
    ("V1ServiceSpec", "ports"): ("port", "protocol"),
    ("V1ServiceStatus", "conditions"): ("type",),
    ("V1ServiceAccount", "secrets"): ("name",),
    ("V1ObjectMeta", "ownerReferences"): ("uid",),
    ("V2HorizontalPodAutoscalerStatus", "conditions"): ("type",),
    ("V1PodDisruptionBudgetStatus", "conditions"): ("type",),
    ("V1CustomResourceDefinitionStatus", "conditions"): ("type",),
}
SET_LISTS = frozenset({
    ("V1ObjectMeta", "finalizers"), ("V1NodeSpec", "podCIDRs"),
    ("V1PodFailurePolicyOnExitCodesRequirement", "values"),
    ("V1UncountedTerminatedPods", "failed"), ("V1UncountedTerminatedPods", "succeeded"),
})  # fmt: skip
ATOMIC_STRUCTS = frozenset({
    "V1LabelSelector", "V1ObjectReference", "V1LocalObjectReference", "V1TypedLocalObjectReference",
    "V1OwnerReference", "V1ConfigMapKeySelector", "V1SecretKeySelector", "V1ObjectFieldSelector",
    "V1ResourceFieldSelector", "V1NodeSelector", "V1NodeSelectorTerm", "V1SecretReference", "V1FileKeySelector",
    "V1ScopeSelector", "V1RoleRef", "RbacV1Subject",
})  # fmt: skip
ATOMIC_MAPS = frozenset({
    ("V1PodSpec", "nodeSelector"), ("V1ServiceSpec", "selector"), ("V1EndpointSlice", "nodeSelector"),
})  # fmt: skip
QUANTITY_MAPS = frozenset({
    "requests", "limits", "capacity", "allocatable", "overhead", "hard", "used", "allocatedResources",
    "default", "defaultRequest", "max", "min", "maxLimitRequestRatio",
})  # fmt: skip
QUANTITIES = frozenset({"sizeLimit", "divisor", "averageValue"})
# Times with exactly six digits of the second.
MICRO_TIMES = frozenset({"acquireTime", "renewTime"})
# Bytes, which are base64 in JSON.
BYTE_MAPS = frozenset({("V1Secret", "data"), ("V1ConfigMap", "binaryData")})
KEY_DEFAULTS: dict[tuple[str, str], Any] = {
    ("V1ContainerPort", "protocol"): "TCP",
    ("V1ServicePort", "protocol"): "TCP",
}
_QUANTITY_MAP_OWNERS = frozenset({
    "V1ResourceRequirements", "V1VolumeResourceRequirements", "V1NodeStatus", "V1PodSpec", "V1ResourceQuotaSpec",
    "V1ResourceQuotaStatus", "V1ContainerStatus", "V1LimitRangeItem", "V1PersistentVolumeClaimStatus",
    "V1PersistentVolumeSpec", "V1PodStatus",
})  # fmt: skip


@cache
def _types() -> dict[str, dict[str, str]]:
    loaded: dict[str, dict[str, str]] = json.loads(TYPES_FILE.read_text())
    return loaded


@cache
def struct(name: str) -> Struct:
    """Returns the schema of one type by its name in the data file (`V1PodSpec`)."""
    result = Struct(name, name in ATOMIC_STRUCTS)
    # Cached before its fields are resolved, because types may refer to themselves.
    _STRUCTS[name] = result
    for field_name, kind in _types()[name].items():
        result.fields[field_name] = _resolve(kind, name, field_name)
    return result


_STRUCTS: dict[str, Struct] = {}


def _resolve(kind: str, owner: str, field_name: str) -> SchemaType:
    if kind.startswith("list:"):
        item = _resolve(kind[5:], owner, field_name)
        keys = LIST_KEYS.get((owner, field_name))
        if keys is not None:
            return ListType(item, "map", keys)
        return ListType(item, "set" if (owner, field_name) in SET_LISTS else "atomic")
    if kind.startswith("map:"):
        if owner in _QUANTITY_MAP_OWNERS and field_name in QUANTITY_MAPS:
            return MapType(SchemaScalar("quantity"))
        if (owner, field_name) in BYTE_MAPS:
            return MapType(SchemaScalar("bytes"))
        return MapType(_resolve(kind[4:], owner, field_name), (owner, field_name) in ATOMIC_MAPS)
    if kind in _types():
        return _STRUCTS.get(kind) or struct(kind)
    if field_name in MICRO_TIMES:
        return SchemaScalar("micro time")
    return SchemaScalar("quantity" if field_name in QUANTITIES else kind)


_ROOT_NAMES = {"Event": "CoreV1Event", "HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler"}


def schema_of(resource: ResourceType) -> Struct:
    """Returns the schema of a whole object of this resource type."""
    if resource.custom is not None:
        structure: Struct = resource.custom.structure
        return structure
    return struct_of_kind(resource.kind)


def struct_of_kind(kind: str) -> Struct:
    """Returns the schema of a kind, which need not have its own resource type (Scale)."""
    name = _ROOT_NAMES.get(kind, f"V1{kind}")
    return _STRUCTS.get(name) or struct(name)


def go_type_name(type_name: str) -> str:
    """Returns the name of a type in the real server's messages: `DeploymentSpec` for V1DeploymentSpec."""
    for prefix in ("CoreV1", "RbacV1", "ApiextensionsV1", "V1", "V2"):
        if type_name.startswith(prefix):
            return type_name[len(prefix) :]
    return type_name
