"""A Service, and a ServiceAccount.

A Service becomes ports of the container whose pods it selects. Its labels have no place of their own (the
platform puts the container's labels on its Services); that they agree is checked in `attach`, where the
container is known.
"""

from __future__ import annotations

import re

from pilothouse_manifests.reading import read
from pilothouse_manifests.services import HEADLESS, TYPES, service_type
from pilothouse_manifests.table import SERVICE, SERVICE_PORT
from pilothouse_manifests.translator.fields import Fields, texts_of
from pilothouse_manifests.translator.manifest import (
    ManifestAccount,
    ManifestService,
    ManifestServicePort,
    metadata,
)
from pilothouse_manifests.volumes import DNS_LABEL


def convert_service(root: Fields, namespace: str) -> ManifestService:
    """The service that the document describes; whether it is usable says its reporter."""
    with root.part("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            stated.invalid(
                "name", f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            )
    with root.part("spec", required=True) as spec:
        type_ = _service_type(spec, own.exported)
        selector = spec.words("selector")
        if spec.present and not selector:
            spec.unusable("selector", "cannot be represented: a service without selector")
        read(SERVICE, spec)
        ports = [port for item in spec.each("ports") if (port := _port(item, type_)) is not None]
        if spec.present and not spec.has("ports"):
            spec.unusable("ports", "cannot be represented: a service without ports")
    _check_names(ports, root)
    return ManifestService(
        place=root.place,
        reporter=root.reporter,
        name=own.name,
        service_type=type_,
        selector=selector,
        labels=own.labels,
        annotations=texts_of(own.annotations),
        ports=ports,
    )


def _service_type(spec: Fields, exported: bool) -> str:
    stated, address = spec.text("type"), spec.text("clusterIP")
    if exported:
        for name in ("clusterIPs", "ipFamilies"):
            spec.item(name)
    if stated and stated not in TYPES:
        spec.unusable("type", f"cannot be represented: {stated}")
    type_ = service_type(stated, address)
    # An address that the cluster gave is not asked for again.
    if address and type_ != HEADLESS and not exported:
        spec.unsupported("clusterIP")
    if type_ == HEADLESS and stated in ("NodePort", "LoadBalancer"):
        spec.invalid("clusterIP", f"expected an address for a {stated}, found 'None'")
    return type_


def _port(stated: Fields, type_: str) -> ManifestServicePort | None:
    with stated:
        port = read(SERVICE_PORT, stated)
        if port is not None and port.get("node_port") and type_ not in ("NodePort", "LoadBalancer"):
            stated.invalid(
                "nodePort", "expected none for a service that is neither NodePort nor LoadBalancer"
            )
    if port is None or "service_port" not in port:
        return None
    number = port["service_port"]
    return ManifestServicePort(
        place=stated.place_of("targetPort"),
        path=stated.path_of("targetPort"),
        name=port.get("name", ""),
        number=number,
        target=port.get("target_name") or port.get("container_port") or number,
        protocol=port["protocol"],
        node_port=port.get("node_port", 0),
        app_protocol=port.get("app_protocol", ""),
    )


def _check_names(ports: list[ManifestServicePort], root: Fields) -> None:
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


def convert_account(root: Fields, namespace: str) -> ManifestAccount:
    """The service account that the document describes. The platform makes it by name, so it may say nothing else."""
    with root.part("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not own.name:
            stated.invalid("name", "expected a value, found none")
        for entry in [*own.labels.values(), *own.annotations.values()]:
            root.reporter.unsupported(entry.place, entry.path)
    root.only_default("automountServiceAccountToken", True)
    return ManifestAccount(root.place, root.reporter, own.name)
