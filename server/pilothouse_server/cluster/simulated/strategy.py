"""Rules of each kind that the store applies to every write, whoever writes.

The generic rules (names, system metadata, generation) are here; defaults live in `defaults`, checks in
`validation`, address and port allocation in `services`. Controllers write through the store too, so they get
the same defaults and the same refusals as HTTP clients.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .resources import DEPLOYMENTS, NAMESPACES, NODES, PODS, REPLICA_SETS, ResourceType

if TYPE_CHECKING:
    from .store import Store

JsonObject = dict[str, Any]

# The letters Kubernetes uses for generated names: no vowels, no digits that look like letters.
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SYSTEM_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp",
                    "deletionGracePeriodSeconds")  # fmt: skip


@dataclass
class Allocators:
    """Addresses and ports handed out to Services."""

    cluster_ips: set[str] = field(default_factory=set)
    node_ports: set[int] = field(default_factory=set)


def name_object(resource: ResourceType, metadata: JsonObject) -> None:
    """Fills metadata.name from generateName with five random letters."""
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(random.choices(_NAME_LETTERS, k=5))
        metadata["name"] = f"{metadata['generateName'][:58]}{suffix}"


def keep_system_metadata(metadata: JsonObject, stored: JsonObject) -> None:
    """Clients cannot change these fields: whatever was sent, the stored values stay."""
    for name in _SYSTEM_METADATA:
        if name in stored:
            metadata[name] = stored[name]
        else:
            metadata.pop(name, None)
    if "managedFields" not in metadata and "managedFields" in stored:
        metadata["managedFields"] = copy.deepcopy(stored["managedFields"])


def prepare_for_create(store: Store, resource: ResourceType, obj: JsonObject) -> None:
    """Defaults and checks a new object in place; its status is what a new object has."""
    if resource is NAMESPACES:
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
    elif resource is PODS:
        obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif resource is REPLICA_SETS:
        obj["status"] = {"replicas": 0}
    elif resource is DEPLOYMENTS:
        obj["status"] = {}
    elif resource is NODES:
        obj.setdefault("spec", {})
        obj.setdefault("status", {})


def prepare_for_update(store: Store, resource: ResourceType, obj: JsonObject, old: JsonObject) -> None:
    """Defaults and checks a changed object in place."""


def prepare_status_update(
    resource: ResourceType, obj: JsonObject, sent: JsonObject, old: JsonObject
) -> None:
    """Hook for kinds whose status update may also change something else."""


def allocate(
    store: Store, resource: ResourceType, obj: JsonObject, old: JsonObject | None, *, dry_run: bool
) -> None:
    """Hands out cluster addresses and node ports to a Service."""


def release(store: Store, resource: ResourceType, obj: JsonObject) -> None:
    """Gives back what `allocate` handed out."""


def restore_allocations(store: Store, resource: ResourceType, obj: JsonObject) -> None:
    """Marks what a loaded object holds as taken."""


def raises_generation(resource: ResourceType, obj: JsonObject, old: JsonObject) -> bool:
    """Whether this change raises metadata.generation."""
    if obj.get("spec") != old.get("spec"):
        return True
    if not resource.generation_on_annotations:
        return False
    return bool(obj["metadata"].get("annotations") != old["metadata"].get("annotations"))


def same_content(obj: JsonObject, old: JsonObject) -> bool:
    """Whether a write changes nothing (the times in managedFields do not count)."""
    if {key: value for key, value in obj.items() if key != "metadata"} != {
        key: value for key, value in old.items() if key != "metadata"
    }:
        return False
    return _comparable_metadata(obj["metadata"]) == _comparable_metadata(old["metadata"])


def _comparable_metadata(metadata: JsonObject) -> JsonObject:
    comparable = {key: value for key, value in metadata.items() if value not in ({}, [], None)}
    comparable["managedFields"] = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in metadata.get("managedFields") or []
    ]
    return comparable
