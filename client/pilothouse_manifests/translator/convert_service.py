"""Converts a Service.

A Service is an object of its own on the platform, with the selector of its manifest. If a container on the server
already owns a Service of that name by its ports, the Service stays that container's: `attach` joins the two.
"""

from __future__ import annotations

import re

from pilothouse_manifests.fields import Values
from pilothouse_manifests.reading import read
from pilothouse_manifests.services import SPEC
from pilothouse_manifests.translator.fields import Fields, texts_of
from pilothouse_manifests.translator.manifest import ManifestService, metadata
from pilothouse_manifests.translator.nodes import InputPosition
from pilothouse_manifests.volumes import DNS_LABEL


def convert_service(root: Fields, namespace: str) -> ManifestService:
    """Converts a Service document.

    Problems go to its reporter; discard the result if `reporter.usable` is false.
    """
    with root.part("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            stated.invalid(
                "name", f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            )
    with root.part("spec", required=True) as spec:
        values = read(SPEC, spec) or {}
        if own.exported:
            # The cluster chose these addresses.
            spec.item("clusterIPs")
            values = {key: value for key, value in values.items() if key not in ("cluster_ip", "ip_families")}
        places = [item.at("targetPort") for item in spec.each("ports")]
        ports = values.get("ports", [])
        _check_ports(ports, places, root)
        _check_type(values, spec)
    described = {
        "name": own.name,
        **values,
        "labels": texts_of(own.labels),
        "annotations": texts_of(own.annotations),
    }
    return ManifestService(root.place, root.reporter, described, own.labels, spec, places)


def _check_type(values: Values, spec: Fields) -> None:
    type_ = values.get("type", "ClusterIP")
    if values.get("headless") and type_ != "ClusterIP":
        spec.invalid("clusterIP", f"expected an address for a {type_}, found 'None'")
    if type_ not in ("NodePort", "LoadBalancer"):
        for port, item in zip(values.get("ports", ()), spec.each("ports"), strict=True):
            if port.get("node_port"):
                item.invalid(
                    "nodePort", "expected none for a service that is neither NodePort nor LoadBalancer"
                )


def _check_ports(ports: list[Values], places: list[tuple[InputPosition, str]], root: Fields) -> None:
    """Checks Kubernetes' rules for several ports: each has a unique name, and no two have the same number."""
    names = [port.get("name", "") for port in ports]
    numbers = [(port.get("port"), port["protocol"]) for port in ports]
    for index, (name, number) in enumerate(zip(names, numbers, strict=True)):
        place, at = places[index][0], f"spec.ports[{index}]"
        if len(ports) > 1 and not name:
            message = "expected a name because there are other ports, found none"
            root.reporter.invalid(place, f"{at}.name", message)
        elif name in names[:index]:
            root.reporter.invalid(place, f"{at}.name", f"expected each port name once, found {name!r} again")
        if number in numbers[:index]:
            root.reporter.invalid(place, f"{at}.port", f"expected each port once, found {number[0]} again")
