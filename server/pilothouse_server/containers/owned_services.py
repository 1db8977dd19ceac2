"""Converts a container's ports to Services, with pure functions.

Ports are a short form of separate Services. The uid of such a Service is computed from the container's uid and the
Service's name. So the objects on the cluster have the uid from the first apply on, even if the Service's row is not
written yet.
"""

from __future__ import annotations

from uuid import UUID, uuid5

import msgspec

from pilothouse_server.containers.model import Container, Port, TakenOverService
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.network.model import PublishedPort, Service, ServiceFields, ServiceType

NO_SERVICE = "None"
_HEADLESS = "Headless"
# The name space of these uids; no other uid is computed with it.
_SPACE = UUID("5b6d2b4e-6d2c-4c1e-9a3b-0a1d5c6f7e88")


def owned_services(container: Container) -> list[Service]:
    """Returns one Service per `service_name`, in the order of the ports; leaves out ports without a Service."""
    groups: dict[str, list[Port]] = {}
    for port in container.ports:
        if port.service_type != NO_SERVICE:
            groups.setdefault(port.service_name or container.name, []).append(port)
    return [_service(container, name, ports) for name, ports in groups.items()]


def _service(container: Container, name: str, ports: list[Port]) -> Service:
    found = _taken_over_service(container, name)
    stated = ports[0].service_type
    headless = stated == _HEADLESS
    type_: ServiceType = "ClusterIP" if headless else msgspec.convert(stated, ServiceType)
    return Service(
        uid=str(uuid5(_SPACE, f"{container.uid}/{name}")),
        name=name,
        namespace_ref=container.namespace_ref,
        type=type_,
        spec=ServiceFields(
            selector=_pods_of(container) if found is None else dict(found.selector),
            ports=tuple(_port(port, found) for port in ports),
            headless=headless,
        ),
        labels=dict(container.labels),
        annotations=dict(ports[0].service_annotations),
        drift_policy=container.drift_policy,
        owner=container.name,
        owner_id=container.id,
    )


def _port(port: Port, found: TakenOverService | None) -> PublishedPort:
    service_port = port.service_port or port.container_port
    # A Service with several ports must name each of them, and app protocols and probes refer to the names. A single
    # port also gets a name, unless its Service was taken over.
    name = port.name or ("" if found else f"{port.protocol.lower()}-{service_port}")
    target = found.target_ports.get(f"{port.protocol}/{service_port}") if found else None
    return PublishedPort(
        service_port,
        name,
        target or str(port.container_port),
        port.protocol,
        port.node_port or 0,
        port.app_protocol,
    )


def _pods_of(container: Container) -> dict[str, str]:
    """Returns the labels by which a Service selects the pods."""
    taken_over = container.spec.taken_over
    if taken_over is None:
        return {CONTAINER_UID: container.uid}
    return dict(taken_over.selector.get("matchLabels") or container.spec.pod_labels)


def _taken_over_service(container: Container, name: str) -> TakenOverService | None:
    taken_over = container.spec.taken_over
    found = () if taken_over is None else taken_over.services
    return next((service for service in found if service.name == name), None)
