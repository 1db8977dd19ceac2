"""The names of a Service on the platform and in Kubernetes: its type, and the table of a standalone Service.

In Kubernetes, headless is not a type but a ClusterIP Service without an address. `SPEC` and `PORT` have the names of
`network.v1.Service`; they do not include metadata.
"""

from __future__ import annotations

import re

from pilothouse_manifests.fields import (
    Field,
    FieldPart,
    Flag,
    Group,
    Number,
    PortField,
    Repeated,
    Text,
    Texts,
    Values,
    Words,
)
from pilothouse_manifests.sources import MappingSource

HEADLESS = "Headless"
TYPES = ("ClusterIP", "NodePort", "LoadBalancer")

_NO_ADDRESS = "None"
# A pod names its port by an IANA service name. A Service names its port by a DNS label of up to 63 characters.
_POD_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def is_pod_port_name(name: str) -> bool:
    """Returns whether a pod's port may have a Service port's name; if not, the platform leaves the pod's name out."""
    return _POD_PORT_NAME.fullmatch(name) is not None


def service_type(stated: str, cluster_ip: str) -> str:
    """Returns the platform's word for a Service of this type (default: ClusterIP) and address."""
    return HEADLESS if cluster_ip == _NO_ADDRESS else stated or TYPES[0]


def _with_target(port: Values, source: MappingSource) -> Values:
    """Merges a target by number or by name into one value; a live Service's default, its own port, is left out."""
    number, name = port.pop("target_number", 0), port.pop("target_name", "")
    if name or (number and not (source.live and number == port["port"])):
        port["target"] = name or str(number)
    return {"protocol": "TCP", **port}


def _with_headless(spec: Values, source: MappingSource) -> Values:
    """Replaces the address None by `headless`.

    Any other address of a live Service is the cluster's choice."""
    address = spec.pop("cluster_ip", "")
    if address == _NO_ADDRESS:
        return {**spec, "headless": True}
    return spec if source.live or not address else {**spec, "cluster_ip": address}


_LARGEST_PORT = 65535
_TRAFFIC = Text(("Cluster", "Local"))
# A port of a standalone Service.
PORT = FieldPart(
    "ports",
    (
        Field("name", "name", Text()),
        Field("port", "port", Number(1, _LARGEST_PORT), required=True),
        PortField("target_number", "target_name", "targetPort"),
        Field("protocol", "protocol", Text(("TCP", "UDP", "SCTP")), default="TCP"),
        Field("node_port", "nodePort", Number(maximum=_LARGEST_PORT)),
        Field("app_protocol", "appProtocol", Text()),
    ),
    check=_with_target,
)
# The spec of a standalone Service, by the names of `network.v1.Service`.
SPEC = FieldPart(
    "service",
    (
        Field("type", "type", Text((*TYPES, "ExternalName")), default=TYPES[0]),
        Field("selector", "selector", Words()),
        Field("ports", "ports", Repeated(PORT, by="port", keys=("port", "protocol"))),
        Field("cluster_ip", "clusterIP", Text()),
        Field("publish_not_ready_addresses", "publishNotReadyAddresses", Flag()),
        Field("session_affinity", "sessionAffinity", Text(("None", "ClientIP")), default="None"),
        Group(
            "sessionAffinityConfig",
            (
                Group(
                    "clientIP",
                    (Field("session_affinity_timeout_seconds", "timeoutSeconds", Number(), default=10800),),
                ),
            ),
        ),
        Field("external_traffic_policy", "externalTrafficPolicy", _TRAFFIC, default="Cluster"),
        Field("internal_traffic_policy", "internalTrafficPolicy", _TRAFFIC, default="Cluster"),
        Field("traffic_distribution", "trafficDistribution", Text()),
        Field("ip_families", "ipFamilies", Texts()),
        Field(
            "ip_family_policy",
            "ipFamilyPolicy",
            Text(("SingleStack", "PreferDualStack", "RequireDualStack")),
            default="SingleStack",
        ),
        Field("load_balancer_source_ranges", "loadBalancerSourceRanges", Texts()),
        Field(
            "allocate_load_balancer_node_ports",
            "allocateLoadBalancerNodePorts",
            Flag(optional=True),
            default=True,
        ),
        Field("load_balancer_class", "loadBalancerClass", Text()),
        Field("load_balancer_ip", "loadBalancerIP", Text()),
        Field("external_ips", "externalIPs", Texts()),
        Field("external_name", "externalName", Text()),
    ),
    check=_with_headless,
)
