"""Values of Services, independent of storage, transport and clusters.

`ServiceFields` are the fields that the caller sets and that have no column of their own: one JSON document in the row.
They use the words of Kubernetes, so that `pilothouse_manifests` writes them unchanged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from pilothouse_server.values.resources import Condition, ContainerId, Reconciled

ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]
ServiceStatus = Literal["pending", "active", "failed", "deleted"]
ServiceDriftPolicy = Literal["repair", "report", "adopt"]
TrafficPolicy = Literal["Cluster", "Local"]

# Types that a namespace without restrictions allows.
USUAL_TYPES: tuple[ServiceType, ...] = ("ClusterIP", "NodePort", "LoadBalancer")


class PublishedPort(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A port of a Service. `target`: number or name of the pods' port; empty for the number in `port`."""

    port: int
    name: str = ""
    target: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    node_port: int = 0
    app_protocol: str = ""


class ServiceFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """The desired fields of a Service that have no column."""

    selector: dict[str, str] = {}
    containers: tuple[str, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    headless: bool = False
    publish_not_ready_addresses: bool = False
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_timeout_seconds: int = 0
    external_traffic_policy: TrafficPolicy = "Cluster"
    internal_traffic_policy: TrafficPolicy = "Cluster"
    traffic_distribution: str = ""
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] = "SingleStack"
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool | None = None
    load_balancer_class: str = ""
    load_balancer_ip: str = ""
    cluster_ip: str = ""
    external_ips: tuple[str, ...] = ()
    external_name: str = ""
    # The rights that it was admitted with (`guarding`); None if an older release stored it without them.
    rights: tuple[str, ...] | None = None


class ObservedService(msgspec.Struct, frozen=True):
    """The state last observed on the cluster. `node_ports`: in the order of the ports, 0 for a port without one."""

    status: ServiceStatus = "pending"
    reason: str = ""
    message: str = ""
    addresses: tuple[str, ...] = ()
    node_ports: tuple[int, ...] = ()
    ready_endpoints: int = 0
    endpoints: int = 0
    conditions: tuple[Condition, ...] = ()
    stale_since: datetime | None = None


class Service(Reconciled, msgspec.Struct, frozen=True, kw_only=True):
    """A Service as stored: the desired state, the observed state, and the reconciler's records.

    `owner`: name of the container whose ports define it; empty if no container does. `taken_over`: uid of the object on
    the cluster that an import took over. `container_uids`: uids of the existing containers that `spec.containers`
    names.
    """

    id: int = 0
    uid: str = ""
    name: str
    type: ServiceType = "ClusterIP"
    spec: ServiceFields = ServiceFields()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    drift_policy: ServiceDriftPolicy = "repair"
    owner: str = ""
    owner_id: ContainerId | None = None
    taken_over: str = ""
    container_uids: tuple[str, ...] = ()
    observed: ObservedService = ObservedService()
