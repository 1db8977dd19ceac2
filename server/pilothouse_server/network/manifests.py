"""Builds the Kubernetes object of a Service, and checks whether an object belongs to it: pure functions.

This is the only place that writes Services, with or without an owning container. A field at its default is not sent, so
that the API and other field managers keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from pilothouse_manifests.services import SPEC
from pilothouse_manifests.writing import writer
from pilothouse_server.kubernetes.errors import NAME_TAKEN, Conflict
from pilothouse_server.kubernetes.objects import KubernetesObject, Manifest
from pilothouse_server.kubernetes.objects import Service as ServiceObject
from pilothouse_server.kubernetes.ownership import (
    CONTAINER_UID,
    DOMAIN,
    MANAGED_BY,
    MANAGER,
    NAMESPACE,
    NAMESPACE_UID,
    label_value,
    without_empty,
)
from pilothouse_server.network.model import PublishedPort, Service

SERVICE_UID: Final = f"{DOMAIN}/service-uid"
NO_ADDRESS: Final = "None"
# The value selects no pod. A Service without a selector would leave its endpoints to other programs.
_NO_CONTAINER: Final = "none"


class _Port(msgspec.Struct, gc=False):
    name: str
    port: int
    target_number: int
    target_name: str
    protocol: str
    node_port: int
    app_protocol: str


class _Spec(msgspec.Struct, gc=False):
    type: str
    selector: Mapping[str, str]
    ports: list[_Port]
    cluster_ip: str
    publish_not_ready_addresses: bool
    session_affinity: str
    session_affinity_timeout_seconds: int
    external_traffic_policy: str
    internal_traffic_policy: str
    traffic_distribution: str
    ip_families: tuple[str, ...]
    ip_family_policy: str
    load_balancer_source_ranges: tuple[str, ...]
    allocate_load_balancer_node_ports: bool | None
    load_balancer_class: str
    load_balancer_ip: str
    external_ips: tuple[str, ...]
    external_name: str


_write = writer(SPEC)


def manifest(service: Service) -> Manifest:
    """Returns the object of a Service without an owning container, with the caller's labels and the platform's.

    A Service that was taken over gets only the label by which the platform finds it. It lacks the namespace's uid so
    that the sweep does not delete it: a database restored from before the import does not know the object.
    """
    ours = {
        MANAGED_BY: MANAGER,
        NAMESPACE: label_value(service.namespace),
        NAMESPACE_UID: service.namespace_uid,
    }
    ours = {} if service.taken_over else ours
    return object_of(service, {**service.labels, **ours, SERVICE_UID: service.uid})


def object_of(service: Service, labels: Mapping[str, str]) -> Manifest:
    """Returns the object of a Service with these labels."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": without_empty(
            {
                "name": service.name,
                "namespace": service.kubernetes_namespace,
                "labels": dict(labels),
                "annotations": dict(service.annotations),
            }
        ),
        "spec": _write(_spec(service)),
    }


def selector_of(service: Service) -> dict[str, str]:
    """Returns the labels of the pods that a Service selects; empty if other programs manage its endpoints."""
    if not service.spec.containers:
        return dict(service.spec.selector)
    return {CONTAINER_UID: next(iter(service.container_uids), _NO_CONTAINER)}


def is_ours(service: Service, found: KubernetesObject) -> bool:
    """Returns whether an object belongs to this Service: it has its uid, or was taken over and has no owner yet."""
    label = found.metadata.label(SERVICE_UID)
    if label:
        return label == service.uid
    nobodys = not found.metadata.label(CONTAINER_UID)
    return nobodys and bool(service.taken_over) and found.metadata.uid == service.taken_over


def check_ours(service: Service, found: KubernetesObject | None) -> None:
    """Raises Conflict `NameTaken` if the object belongs to somebody else."""
    if found is None or is_ours(service, found):
        return
    where = f"{service.kubernetes_namespace}/{service.name}"
    raise Conflict(f"Service {where} exists and does not belong to this service", status_reason=NAME_TAKEN)


def needs_another_address(wanted: Manifest, found: ServiceObject) -> bool:
    """Returns whether the object must be recreated, because an address can be neither added, changed nor removed."""
    spec = wanted["spec"]
    if spec.get("type") == "ExternalName" or not found.spec.cluster_ip:
        # Kubernetes allocates and releases the address when the type changes.
        return False
    asked = spec.get("clusterIP", "")
    return found.headless if not asked else found.spec.cluster_ip != asked


def _spec(service: Service) -> _Spec:
    spec = service.spec
    return _Spec(
        service.type,
        selector_of(service),
        [_port(port) for port in spec.ports],
        NO_ADDRESS if spec.headless else spec.cluster_ip,
        spec.publish_not_ready_addresses,
        _said(spec.session_affinity, "None"),
        spec.session_affinity_timeout_seconds,
        _said(spec.external_traffic_policy, "Cluster"),
        _said(spec.internal_traffic_policy, "Cluster"),
        spec.traffic_distribution,
        spec.ip_families,
        _said(spec.ip_family_policy, "SingleStack"),
        spec.load_balancer_source_ranges,
        spec.allocate_load_balancer_node_ports,
        spec.load_balancer_class,
        spec.load_balancer_ip,
        spec.external_ips,
        spec.external_name,
    )


def _port(port: PublishedPort) -> _Port:
    by_number = port.target.isdecimal()
    return _Port(
        port.name,
        port.port,
        int(port.target) if by_number else 0,
        "" if by_number else port.target,
        port.protocol,
        port.node_port,
        port.app_protocol,
    )


def _said(value: str, default: str) -> str:
    return "" if value == default else value
