"""The rules of a single Service, and the types that its namespace allows.

Rules of single fields (lengths, forms) are declared in the proto file and were checked before. The cluster checks the
rest: node ports that are taken, address families that it does not have.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

from pilothouse_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Violation,
    missing_field,
)
from pilothouse_server.network.model import USUAL_TYPES, PublishedPort, Service, ServiceType
from pilothouse_server.values.names import port_name_problem

RESERVED_DOMAIN = "pilothouse.dev"
_NODE_PORTS = range(30000, 32768)
_LARGEST_PORT = 65535
_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
# Fields that only some types have, with these types.
_OWNERS: dict[str, tuple[ServiceType, ...]] = {
    "headless": ("ClusterIP",),
    "external_name": ("ExternalName",),
    "load_balancer_source_ranges": ("LoadBalancer",),
    "load_balancer_class": ("LoadBalancer",),
    "load_balancer_ip": ("LoadBalancer",),
    "cluster_ip": ("ClusterIP", "NodePort", "LoadBalancer"),
    "containers": ("ClusterIP", "NodePort", "LoadBalancer"),
}


def checked(service: Service) -> Service:
    """Returns the Service; raises InvalidArgument with every field that breaks a rule."""
    violations = [
        *_type_violations(service),
        *_selector_violations(service),
        *_port_violations(service),
        *_address_violations(service),
        *_key_violations(service),
    ]
    if not service.name:
        violations.insert(0, missing_field("service.name"))
    if violations:
        raise _invalid(violations)
    return service


def refuse_type(namespace: str, allowed: Collection[str], wanted: ServiceType, field: str) -> None:
    """Raises FailedPrecondition if the namespace does not allow Services of a type.

    `allowed`: if empty, the usual types are allowed, and EXTERNAL_NAME needs only its permission.
    """
    if wanted in (allowed or (*USUAL_TYPES, "ExternalName")):
        return
    shown = ", ".join(_word(each) for each in allowed)
    raise FailedPrecondition(
        f'{field}: namespace "{namespace}" allows Services of type {shown}, not {_word(wanted)}; ask an administrator '
        "to change its service_types",
        reason="SERVICE_TYPE_NOT_ALLOWED",
        metadata={"field": field, "type": _word(wanted), "allowed": shown},
    )


def refuse_exceeded_number(namespace: str, limit: int, used: int, asked: int) -> None:
    """Raises ResourceExhausted if `asked` more Services exceed the quota of a namespace."""
    if used + asked > limit:
        raise ResourceExhausted(
            f'quota of namespace "{namespace}" exceeded: services {used} used, {asked} requested, {limit} allowed',
            reason="QUOTA_EXCEEDED",
            metadata={"resource": "services", "limit": str(limit), "used": str(used), "asked": str(asked)},
        )


def _type_violations(service: Service) -> Iterator[Violation]:
    spec = service.spec
    for field, owners in _OWNERS.items():
        if getattr(spec, field) and service.type not in owners:
            yield _unused(field, f"must be empty for a Service of type {_word(service.type)}")
    if spec.allocate_load_balancer_node_ports is not None and service.type != "LoadBalancer":
        yield _unused(
            "allocate_load_balancer_node_ports", "must be unset for a Service without a load balancer"
        )
    if service.type == "ExternalName" and not spec.external_name:
        yield missing_field("service.external_name")
    if spec.headless and spec.cluster_ip:
        yield _unused("cluster_ip", "must be empty for a headless Service")
    if spec.session_affinity_timeout_seconds and spec.session_affinity != "ClientIP":
        yield _unused("session_affinity_timeout_seconds", "is only allowed with session_affinity CLIENT_IP")
    reachable = service.type in _WITH_NODE_PORTS or spec.external_ips
    if spec.external_traffic_policy == "Local" and not reachable:
        yield _unused(
            "external_traffic_policy", "LOCAL is only allowed with NODE_PORT, LOAD_BALANCER or external_ips"
        )


def _selector_violations(service: Service) -> Iterator[Violation]:
    if service.spec.selector and service.spec.containers:
        yield _unused("containers", "must be empty where selector is given")
    if len(service.spec.containers) > 1:
        words = "must name at most one container; for several, set selector to a label that all have in pod_labels"
        yield Violation("service.containers", "single", words)
    if service.type == "ExternalName" and service.spec.selector:
        yield _unused("selector", "must be empty for a Service of type EXTERNAL_NAME")


def _port_violations(service: Service) -> Iterator[Violation]:
    ports = service.spec.ports
    if not ports and not service.spec.headless and service.type != "ExternalName":
        yield missing_field("service.ports")
    numbers: set[tuple[int, str]] = set()
    names: set[str] = set()
    for index, port in enumerate(ports):
        at = f"service.ports[{index}]"
        if (port.port, port.protocol) in numbers:
            yield Violation(at, "unique", "the port is duplicate")
        if port.name and port.name in names:
            yield Violation(f"{at}.name", "unique", "the name is duplicate")
        if len(ports) > 1 and not port.name:
            yield Violation(f"{at}.name", "required", "must be set where a Service has several ports")
        numbers.add((port.port, port.protocol))
        names.add(port.name)
        yield from _one_port_violations(service, at, port)


def _one_port_violations(service: Service, at: str, port: PublishedPort) -> Iterator[Violation]:
    if port.target.isdecimal():
        if not 1 <= int(port.target) <= _LARGEST_PORT:
            yield Violation(f"{at}.target", "range", f"must be 1 to {_LARGEST_PORT}, or a name")
    elif port.target and (problem := port_name_problem(port.target)):
        yield Violation(f"{at}.target", "format", f"must be a number, or {problem.removeprefix('must be ')}")
    if not port.node_port:
        return
    if service.type not in _WITH_NODE_PORTS:
        yield Violation(f"{at}.node_port", "unused", "is only allowed with type NODE_PORT and LOAD_BALANCER")
    elif port.node_port not in _NODE_PORTS:
        yield Violation(
            f"{at}.node_port", "range", f"must be {_NODE_PORTS[0]} to {_NODE_PORTS[-1]}, or 0 for any"
        )


def _address_violations(service: Service) -> Iterator[Violation]:
    spec = service.spec
    addresses = [
        ("service.cluster_ip", spec.cluster_ip),
        ("service.load_balancer_ip", spec.load_balancer_ip),
        *((f"service.external_ips[{i}]", address) for i, address in enumerate(spec.external_ips)),
    ]
    for field, address in addresses:
        try:
            if address:
                ipaddress.ip_address(address)
        except ValueError:
            yield Violation(field, "format", "must be an IP address")
    for index, network in enumerate(spec.load_balancer_source_ranges):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            field = f"service.load_balancer_source_ranges[{index}]"
            yield Violation(field, "format", "must be a network such as 10.0.0.0/8")
    if len(set(spec.ip_families)) < len(spec.ip_families):
        yield Violation("service.ip_families", "unique", "must name each family once")


def _key_violations(service: Service) -> Iterator[Violation]:
    named = (
        ("labels", service.labels),
        ("annotations", service.annotations),
        ("selector", service.spec.selector),
    )
    for field, values in named:
        for key in values:
            prefix, slash, _ = key.partition("/")
            if slash and (prefix == RESERVED_DOMAIN or prefix.endswith(f".{RESERVED_DOMAIN}")):
                words = f'"{key}": keys of {RESERVED_DOMAIN} are set by the platform'
                if field == "selector":
                    words += "; name the container in containers instead"
                yield Violation(f"service.{field}", "reserved", words)


def _unused(field: str, words: str) -> Violation:
    return Violation(f"service.{field}", "unused", words)


def _word(type_: str) -> str:
    """Returns a type as the API writes it."""
    words = {"ClusterIP": "CLUSTER_IP", "NodePort": "NODE_PORT", "LoadBalancer": "LOAD_BALANCER"}
    return words.get(type_, "EXTERNAL_NAME")


def _invalid(violations: list[Violation]) -> InvalidArgument:
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return InvalidArgument(
        f"{first.field}: {first.description}{more}",
        reason="INVALID_SERVICE",
        metadata={"field": first.field},
        violations=violations[:20],
    )
