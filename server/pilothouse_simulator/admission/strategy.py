"""Rules of each kind that the store applies to every write, whoever writes.

The generic rules (names, system metadata, generation) are here; defaults live in `defaults`, checks in
`validation`, address and port allocation in `services`. Controllers write through the store too, so they get
the same defaults and the same refusals as HTTP clients.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pilothouse_simulator.admission import claims, limit_ranges, quotas, services, webhooks
from pilothouse_simulator.admission.defaults import (
    admit_pod,
    apply_defaults,
    drop_empty_metadata,
    quality_of_service,
)
from pilothouse_simulator.admission.validation import validate_create, validate_update
from pilothouse_simulator.admission.validation_config import take_over_string_data
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import (
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
    ResourceType,
)

if TYPE_CHECKING:
    from pilothouse_simulator.store.store import Store

JsonObject = dict[str, Any]

Allocators = services.ServiceAllocators

# The letters Kubernetes uses for generated names: no vowels, no digits that look like letters.
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SYSTEM_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp",
                    "deletionGracePeriodSeconds")  # fmt: skip


def name_object(metadata: JsonObject) -> None:
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
        metadata["managedFields"] = copy_json(stored["managedFields"])


def default(resource: ResourceType, obj: JsonObject) -> None:
    """Fills defaults in place; what they set counts as set by the writer."""
    if resource is NAMESPACES and obj["metadata"].get("name"):
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    apply_defaults(resource, obj)


def prepare_for_create(store: Store, resource: ResourceType, obj: JsonObject) -> None:
    """Sets what a new object of the kind begins with, and checks it."""
    if resource is NAMESPACES:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
    elif resource is PODS:
        admit_pod(obj)
        limit_ranges.fill_pod(store, obj)
        obj["status"] = {"phase": "Pending", "qosClass": quality_of_service(obj["spec"])}
    elif resource is REPLICA_SETS:
        obj["status"] = {"replicas": 0}
    elif resource in (DEPLOYMENTS, RESOURCE_QUOTAS):
        obj["status"] = {}
    elif resource in (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES):
        claims.begin(resource, obj)
    elif resource is NODES:
        obj.setdefault("spec", {})
        obj.setdefault("status", {})
    elif resource is SECRETS:
        take_over_string_data(obj)
    validate_create(resource, obj)


def prepare_for_update(resource: ResourceType, obj: JsonObject, old: JsonObject) -> None:
    """Keeps what the kind does not let an update change, and checks the rest."""
    if resource is NAMESPACES:
        obj["spec"] = old["spec"]
    drop_empty_metadata(obj["metadata"])
    if resource is SERVICES and not obj["spec"].get("clusterIP") and obj["spec"]["type"] != "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if name in old["spec"]:
                obj["spec"].setdefault(name, old["spec"][name])
    if resource is SERVICES:
        _drop_type_dependent_fields(obj["spec"], old["spec"])
    elif resource is SECRETS:
        take_over_string_data(obj)
    validate_update(resource, obj, old)


def _drop_type_dependent_fields(spec: JsonObject, old_spec: JsonObject) -> None:
    """Unchanged fields that only other types of Service have go away with the type."""
    external = ("NodePort", "LoadBalancer")
    if spec["type"] in external or old_spec["type"] not in external:
        return
    for name in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts", "healthCheckNodePort"):
        if name in spec and spec[name] == old_spec.get(name):
            spec.pop(name)


def prepare_status_update(resource: ResourceType, obj: JsonObject, sent: JsonObject) -> None:
    """A status update of a Deployment also takes its annotations (the controller writes the revision so)."""
    if resource is DEPLOYMENTS and "metadata" in sent:
        if sent["metadata"].get("annotations"):
            obj["metadata"]["annotations"] = sent["metadata"]["annotations"]
        else:
            obj["metadata"].pop("annotations", None)
    apply_defaults(resource, obj)


def allocate(
    store: Store, resource: ResourceType, obj: JsonObject, old: JsonObject | None, *, dry_run: bool
) -> None:
    """Admission, and what a write takes of what is limited: 403 by limit ranges and quotas, 422 by ports."""
    webhooks.check(store, resource, obj, old)
    claims.admit(store, resource, obj, old)
    if old is None:
        limit_ranges.check(store, resource, obj)
    # Quotas first say whether there is room, and are charged when nothing else can refuse.
    quotas.admit(store, resource, obj, old, dry_run=True)
    if resource is SERVICES:
        causes = services.allocate_service(store.allocators, obj, old, dry_run=dry_run)
        if causes:
            raise api_errors.invalid(resource, obj["metadata"]["name"], causes)
    if not dry_run:
        quotas.admit(store, resource, obj, old, dry_run=False)


def release(store: Store, resource: ResourceType, obj: JsonObject) -> None:
    """Gives back what `allocate` handed out."""
    if resource is SERVICES:
        addresses, ports = services.holdings(obj["spec"])
        store.allocators.addresses -= addresses
        store.allocators.node_ports -= ports


def restore_allocations(store: Store, resource: ResourceType, obj: JsonObject) -> None:
    """Marks what a loaded object holds as taken."""
    if resource is SERVICES:
        addresses, ports = services.holdings(obj["spec"])
        store.allocators.addresses |= addresses
        store.allocators.node_ports |= ports


def raises_generation(resource: ResourceType, obj: JsonObject, old: JsonObject) -> bool:
    """Whether this change raises metadata.generation."""
    if "spec" in obj or "spec" in old:
        if obj.get("spec") != old.get("spec"):
            return True
    elif _content(obj) != _content(old):
        return True
    if not resource.generation_on_annotations:
        return False
    return bool(obj["metadata"].get("annotations") != old["metadata"].get("annotations"))


def same_content(obj: JsonObject, old: JsonObject) -> bool:
    """Whether a write changes nothing (the times in managedFields do not count)."""
    return _content(obj) == _content(old) and _comparable_metadata(obj["metadata"]) == _comparable_metadata(
        old["metadata"]
    )


def _content(obj: JsonObject) -> JsonObject:
    return {name: value for name, value in obj.items() if name != "metadata"}


def _comparable_metadata(metadata: JsonObject) -> JsonObject:
    comparable = {key: value for key, value in metadata.items() if value not in ({}, [], None)}
    comparable["managedFields"] = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in metadata.get("managedFields") or []
    ]
    return comparable
