"""A Service, and a ServiceAccount.

A Service becomes ports of the container whose pods it selects. Its labels have no place of their own (the
platform puts the container's labels on its Services); that they agree is checked in `attach`, where the
container is known.
"""

from __future__ import annotations

import re

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.convert_deployment import port_protocol
from pilothouse_client.apply.fields import Fields, Item, texts_of
from pilothouse_client.apply.manifest import DNS_LABEL, Account, Service, ServicePort, metadata

_TYPES = {
    "ClusterIP": pb.SERVICE_TYPE_CLUSTER_IP,
    "NodePort": pb.SERVICE_TYPE_NODE_PORT,
    "LoadBalancer": pb.SERVICE_TYPE_LOAD_BALANCER,
}


def convert_service(root: Fields, namespace: str) -> Service:
    """The service that the document describes; whether it is usable says its reporter."""
    with root.fields("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            message = f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            root.reporter.invalid(stated.place_of("name"), stated.path_of("name"), message)
        for entry in own.annotations.values():
            root.reporter.unsupported(entry.place, entry.path)
    with root.fields("spec", required=True) as spec:
        service_type = _service_type(spec, own.exported)
        selector = texts_of(spec.text_map("selector"))
        if spec.present and not selector:
            message = "cannot be represented: a service without selector"
            root.reporter.unusable(spec.place_of("selector"), spec.path_of("selector"), message)
        spec.only_default("sessionAffinity", "None")
        spec.only_default("internalTrafficPolicy", "Cluster")
        spec.only_default("externalTrafficPolicy", "Cluster")
        spec.only_default("ipFamilyPolicy", "SingleStack")
        spec.only_default("allocateLoadBalancerNodePorts", "true")
        spec.only_default("publishNotReadyAddresses", "false")
        ports = [port for item in spec.items("ports") if (port := _port(item, service_type)) is not None]
        if spec.present and not spec.has("ports"):
            message = "cannot be represented: a service without ports"
            root.reporter.unusable(spec.place_of("ports"), spec.path_of("ports"), message)
    _check_names(ports, root)
    return Service(root.place, root.reporter, own.name, service_type, selector, own.labels, ports)


def _service_type(spec: Fields, exported: bool) -> pb.ServiceType.ValueType:
    text = spec.text("type") or "ClusterIP"
    if text not in _TYPES:
        message = f"cannot be represented: {text}"
        spec.reporter.unusable(spec.place_of("type"), spec.path_of("type"), message)
    headless = False
    if exported:
        for name in ("clusterIPs", "ipFamilies"):
            spec.item(name)
    if spec.has("clusterIP"):
        address = spec.text("clusterIP")
        headless = address == "None"
        # An address that the cluster gave is not asked for again.
        if address not in ("", "None") and not exported:
            spec.reporter.unsupported(spec.place_of("clusterIP"), spec.path_of("clusterIP"))
    if headless and text in ("NodePort", "LoadBalancer"):
        message = f"expected an address for a {text}, found 'None'"
        spec.reporter.invalid(spec.place_of("clusterIP"), spec.path_of("clusterIP"), message)
    return pb.SERVICE_TYPE_HEADLESS if headless else _TYPES.get(text, pb.SERVICE_TYPE_CLUSTER_IP)


def _port(item: Item, service_type: pb.ServiceType.ValueType) -> ServicePort | None:
    with item.fields() as port:
        number = port.integer("port", minimum=1, maximum=65535, required=True)
        target = port.number_or_name("targetPort")
        protocol = port_protocol(port)
        node_port = port.integer("nodePort", maximum=65535) or 0
        if node_port and service_type not in (pb.SERVICE_TYPE_NODE_PORT, pb.SERVICE_TYPE_LOAD_BALANCER):
            message = "expected none for a service that is neither NodePort nor LoadBalancer"
            port.reporter.invalid(port.place_of("nodePort"), port.path_of("nodePort"), message)
        if number is None or protocol is None:
            return None
        return ServicePort(
            place=port.place_of("targetPort"),
            path=port.path_of("targetPort"),
            name=port.text("name"),
            number=number,
            target=target if target is not None else number,
            protocol=protocol,
            node_port=node_port,
            app_protocol=port.text("appProtocol"),
        )


def _check_names(ports: list[ServicePort], root: Fields) -> None:
    """Kubernetes' own rules for several ports: each has a name of its own, and no two are the same."""
    names = [port.name for port in ports]
    for index, port in enumerate(ports):
        if len(ports) > 1 and not port.name:
            root.reporter.invalid(
                port.place, f"spec.ports[{index}].name", "expected a name beside other ports, found none"
            )
        elif port.name in names[:index]:
            message = f"expected each port name once, found {port.name!r} again"
            root.reporter.invalid(port.place, f"spec.ports[{index}].name", message)
        if any((port.number, port.protocol) == (other.number, other.protocol) for other in ports[:index]):
            message = f"expected each port once, found {port.number} again"
            root.reporter.invalid(port.place, f"spec.ports[{index}].port", message)


def convert_account(root: Fields, namespace: str) -> Account:
    """The service account that the document describes. The platform makes it by name, so it may say nothing else."""
    with root.fields("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not own.name:
            root.reporter.invalid(stated.place, stated.path_of("name"), "expected a value, found none")
        for entry in [*own.labels.values(), *own.annotations.values()]:
            root.reporter.unsupported(entry.place, entry.path)
    root.only_default("automountServiceAccountToken", "true")
    return Account(root.place, root.reporter, own.name)
