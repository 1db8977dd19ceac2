"""Allocation of cluster addresses and node ports to Services, as the real registry does it on every write.

`ServiceAllocators` hold the allocated addresses and ports. `allocate_service` fills a Service in place and returns the
causes of a refusal; a dry run reserves nothing.
"""

from __future__ import annotations

import ipaddress
import json
import random
from dataclasses import dataclass, field
from typing import Any

from pilothouse_simulator.values.api_errors import ErrorCause

JsonObject = dict[str, Any]

SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")
NODE_PORTS = range(30_000, 32_768)
# Kubernetes allocates from the upper band first: 86 ports are left for Services that request a port (KEP-3668).
_DYNAMIC_PORTS = NODE_PORTS[86:]
# The Service `kubernetes` has the first address of the network.
_RESERVED = frozenset({str(SERVICE_NETWORK[0]), str(SERVICE_NETWORK[1]), str(SERVICE_NETWORK[-1])})


@dataclass
class ServiceAllocators:
    """Addresses and ports in use."""

    addresses: set[str] = field(default_factory=set)
    node_ports: set[int] = field(default_factory=set)

    def free_address(self) -> str:
        """Returns an unused address."""
        while True:
            address = str(SERVICE_NETWORK[random.randrange(2, SERVICE_NETWORK.num_addresses - 1)])
            if address not in self.addresses and address not in _RESERVED:
                return address

    def free_node_port(self) -> int:
        """Returns an unused port."""
        band = NODE_PORTS if self.node_ports.issuperset(_DYNAMIC_PORTS) else _DYNAMIC_PORTS
        while True:
            port = random.choice(band)
            if port not in self.node_ports:
                return port


def holdings(spec: JsonObject) -> tuple[set[str], set[int]]:
    """Returns the addresses and ports of a stored Service."""
    addresses = {address for address in spec.get("clusterIPs") or [] if address not in ("", "None")}
    return addresses, {int(port["nodePort"]) for port in spec.get("ports") or [] if port.get("nodePort")}


def allocate_service(
    allocators: ServiceAllocators, obj: JsonObject, old: JsonObject | None, *, dry_run: bool
) -> list[ErrorCause]:
    """Allocates the addresses and ports of a Service; an update releases those that it no longer uses."""
    spec = obj["spec"]
    old_spec: JsonObject = old["spec"] if old is not None else {}
    old_addresses, old_ports = holdings(old_spec)
    if spec["type"] == "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(name, None)
    else:
        causes = _allocate_address(allocators, spec, old_spec, old_addresses)
        if causes:
            return causes
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    causes = _allocate_ports(allocators, spec, old_spec, old_ports)
    if causes:
        return causes
    if not dry_run:
        addresses, ports = holdings(spec)
        allocators.addresses = (allocators.addresses - old_addresses) | addresses
        allocators.node_ports = (allocators.node_ports - old_ports) | ports
    return []


def _allocate_address(
    allocators: ServiceAllocators, spec: JsonObject, old_spec: JsonObject, held: set[str]
) -> list[ErrorCause]:
    if not spec.get("clusterIP") and not spec.get("clusterIPs") and old_spec.get("clusterIPs"):
        spec["clusterIPs"] = list(old_spec["clusterIPs"])
        spec["clusterIP"] = old_spec["clusterIP"]
    sent_address = spec.get("clusterIP")
    if sent_address and sent_address != old_spec.get("clusterIP"):
        spec["clusterIPs"] = [sent_address]
    wanted = sent_address or next(iter(spec.get("clusterIPs") or []), "")
    if not wanted:
        wanted = allocators.free_address()
    elif wanted != "None" and wanted not in held:
        shown = json.dumps([wanted])
        try:
            inside = ipaddress.IPv4Address(wanted) in SERVICE_NETWORK
        except ValueError:
            return [ErrorCause("FieldValueInvalid", f"Invalid value: {shown}: must be a valid IP address",
                          "spec.clusterIPs[0]")]  # fmt: skip
        problem = ""
        if not inside:
            problem = "the provided network does not match the current range"
        elif wanted in allocators.addresses or wanted in _RESERVED:
            problem = "provided IP is already allocated"
        if problem:
            message = f"Invalid value: {shown}: failed to allocate IP {wanted}: {problem}"
            return [ErrorCause("FieldValueInvalid", message, "spec.clusterIPs")]
    spec["clusterIP"] = wanted
    spec["clusterIPs"] = [wanted]
    return []


def _allocate_ports(
    allocators: ServiceAllocators, spec: JsonObject, old_spec: JsonObject, held: set[int]
) -> list[ErrorCause]:
    if spec["type"] not in ("NodePort", "LoadBalancer"):
        for port in spec.get("ports") or []:
            # A type without node ports releases those it had; node ports in the request are dropped too.
            port.pop("nodePort", None)
        return []
    previous = {
        (port.get("port"), port.get("protocol")): port.get("nodePort") for port in old_spec.get("ports") or []
    }
    causes: list[ErrorCause] = []
    for index, port in enumerate(spec.get("ports") or []):
        wanted = port.get("nodePort")
        path = f"spec.ports[{index}].nodePort"
        if not wanted:
            port["nodePort"] = previous.get((port["port"], port["protocol"])) or allocators.free_node_port()
        elif wanted not in NODE_PORTS:
            message = (
                f"Invalid value: {wanted}: provided port is not in the valid range. "
                f"The range of valid ports is {NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            )
            causes.append(ErrorCause("FieldValueInvalid", message, path))
        elif wanted in allocators.node_ports and wanted not in held:
            message = f"Invalid value: {wanted}: provided port is already allocated"
            causes.append(ErrorCause("FieldValueInvalid", message, path))
    return causes
