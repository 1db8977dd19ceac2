"""Rules of each kind that the store applies to every write of every client.

This module has the initial fields of a kind and the fields that an update keeps; defaults are in `defaults`, checks in
`validation`, address and port allocation in `services`. Controllers also write through the store, so they get the same
defaults and the same refusals as HTTP clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse_simulator.admission import (
    claims,
    limit_ranges,
    networking,
    pod_security,
    priority,
    quotas,
    services,
    webhooks,
)
from pilothouse_simulator.admission.custom_resources import apply_custom_defaults
from pilothouse_simulator.admission.defaults import (
    account_of,
    admit_pod,
    apply_defaults,
    quality_of_service,
)
from pilothouse_simulator.admission.defaults_pods import drop_empty_metadata
from pilothouse_simulator.admission.defaults_workloads import (
    WORKLOADS,
    initialize_workload,
    number_template,
)
from pilothouse_simulator.admission.validation import validate_create, validate_status, validate_update
from pilothouse_simulator.admission.validation_config import take_over_string_data
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import (
    DAEMON_SETS,
    DEPLOYMENTS,
    INGRESSES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    ResourceType,
)

JsonObject = dict[str, Any]


class KindStrategies:
    """The rules of all kinds, and their allocations. `hooks` are the webhooks that are called on each write."""

    def __init__(self, hooks: Sequence[webhooks.Webhook] = ()) -> None:
        self.allocators = services.ServiceAllocators()
        self._webhooks = hooks

    def default(self, resource: ResourceType, obj: JsonObject) -> None:
        """Fills defaults in place; they count as set by the writer."""
        if resource is NAMESPACES and obj["metadata"].get("name"):
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        apply_defaults(resource, obj)
        apply_custom_defaults(resource, obj)

    def prepare_for_create(self, store: ObjectStore, resource: ResourceType, obj: JsonObject) -> None:
        """Sets the initial fields of a new object of the kind, and checks it."""
        if resource in WORKLOADS:
            initialize_workload(resource, obj)
        elif resource is NAMESPACES:
            obj["spec"] = {"finalizers": ["kubernetes"]}
            obj["status"] = {"phase": "Active"}
        elif resource is PODS:
            name = account_of(obj["spec"])
            admit_pod(obj, store.get(SERVICE_ACCOUNTS, obj["metadata"]["namespace"], name))
            priority.admit(store, obj)
            limit_ranges.fill_pod(store, obj)
            obj["status"] = {"phase": "Pending", "qosClass": quality_of_service(obj["spec"])}
        elif resource is RESOURCE_QUOTAS:
            obj["status"] = {}
        elif resource in (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES):
            claims.initialize(resource, obj)
        elif resource is NODES:
            obj.setdefault("spec", {})
            obj.setdefault("status", {})
        elif resource is SECRETS:
            take_over_string_data(obj)
        elif resource is INGRESSES:
            networking.admit_ingress(store, obj)
        elif resource.custom is not None and resource.has_status:
            obj.pop("status", None)
            apply_custom_defaults(resource, obj)
        validate_create(resource, obj)

    def prepare_for_update(self, resource: ResourceType, obj: JsonObject, old: JsonObject) -> None:
        """Keeps the fields that an update of the kind may not change, and checks the rest."""
        if resource is NAMESPACES:
            obj["spec"] = old["spec"]
        drop_empty_metadata(obj["metadata"])
        if (
            resource is SERVICES
            and not obj["spec"].get("clusterIP")
            and obj["spec"]["type"] != "ExternalName"
        ):
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                if name in old["spec"]:
                    obj["spec"].setdefault(name, old["spec"][name])
        if resource is SERVICES:
            _drop_type_dependent_fields(obj["spec"], old["spec"])
        elif resource is SECRETS:
            take_over_string_data(obj)
        elif resource is DAEMON_SETS:
            number_template(obj, old)
        validate_update(resource, obj, old)

    def prepare_status_update(self, resource: ResourceType, obj: JsonObject, sent: JsonObject) -> None:
        """Copies a Deployment's annotations from a status update: the controller writes the revision in this way."""
        if resource is DEPLOYMENTS and "metadata" in sent:
            if sent["metadata"].get("annotations"):
                obj["metadata"]["annotations"] = sent["metadata"]["annotations"]
            else:
                obj["metadata"].pop("annotations", None)
        apply_defaults(resource, obj)
        apply_custom_defaults(resource, obj)
        validate_status(resource, obj)

    def allocate(
        self,
        store: ObjectStore,
        resource: ResourceType,
        obj: JsonObject,
        old: JsonObject | None,
        *,
        dry_run: bool,
    ) -> None:
        """Runs admission and allocates limited resources.

        Raises 403 for limit ranges and quotas, 422 for addresses and ports.
        """
        webhooks.call(self._webhooks, resource, "CREATE" if old is None else "UPDATE")
        pod_security.check(store, resource, obj, old)
        claims.admit(store, resource, obj, old)
        if old is None:
            limit_ranges.check(store, resource, obj)
        # Quotas are checked first and charged last, when nothing else can refuse the write.
        quotas.admit(store, resource, obj, old, dry_run=True)
        if resource is SERVICES:
            causes = services.allocate_service(self.allocators, obj, old, dry_run=dry_run)
            if causes:
                raise api_errors.invalid(resource, obj["metadata"]["name"], causes)
        if not dry_run:
            quotas.admit(store, resource, obj, old, dry_run=False)

    def release(self, resource: ResourceType, obj: JsonObject) -> None:
        """Releases the allocations of `allocate`."""
        if resource is SERVICES:
            addresses, ports = services.holdings(obj["spec"])
            self.allocators.addresses -= addresses
            self.allocators.node_ports -= ports

    def restore_allocations(self, resource: ResourceType, obj: JsonObject) -> None:
        """Marks the allocations of a loaded object as taken."""
        if resource is SERVICES:
            addresses, ports = services.holdings(obj["spec"])
            self.allocators.addresses |= addresses
            self.allocators.node_ports |= ports


def _drop_type_dependent_fields(spec: JsonObject, old_spec: JsonObject) -> None:
    """Removes unchanged fields that the new type of a Service does not have."""
    external = ("NodePort", "LoadBalancer")
    if spec["type"] in external or old_spec["type"] not in external:
        return
    for name in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts", "healthCheckNodePort"):
        if name in spec and spec[name] == old_spec.get(name):
            spec.pop(name)
