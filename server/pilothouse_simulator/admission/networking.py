"""Defaults and checks of Ingresses, IngressClasses and NetworkPolicies.

No recording shows them. The checks follow Kubernetes' `pkg/apis/networking/validation/validation.go`; the default class
follows the admission plugin `DefaultIngressClass`.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from pilothouse_simulator.admission.validation_metadata import (
    forbidden_field,
    invalid_value,
    label_name_problem,
    not_supported,
    required,
    subdomain_problem,
    validate_label_selector,
)
from pilothouse_simulator.admission.validation_pods import PORT_RANGE
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.resources import INGRESS_CLASSES

JsonObject = dict[str, Any]
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_FORBIDDEN_PARTS = ("//", "/./", "/../", "%2f", "%2F")
_CIDR_MESSAGE = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_WILDCARD_MESSAGE = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
    r"regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def default_ingress(obj: JsonObject) -> None:
    """Fills the defaults of an Ingress in place."""
    obj.setdefault("spec", {})
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def admit_ingress(store: ObjectStore, obj: JsonObject) -> None:
    """Gives a new Ingress that names no class the default class."""
    annotations = obj["metadata"].get("annotations") or {}
    if obj["spec"].get("ingressClassName") or CLASS_ANNOTATION in annotations:
        return
    for entry in store.list(INGRESS_CLASSES):
        if (entry["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
            obj["spec"]["ingressClassName"] = entry["metadata"]["name"]
            return


def validate_ingress(obj: JsonObject) -> list[ErrorCause]:
    """Checks that rules have known path types and complete backends, and that hosts are DNS names."""
    spec = obj["spec"]
    causes: list[ErrorCause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        message = "either `defaultBackend` or `rules` must be specified"
        causes.append(invalid_value("spec", spec.get("rules"), message))
    if spec.get("defaultBackend"):
        causes += _backend(spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or []):
        causes += _rule(rule, f"spec.rules[{index}]")
    for index, entry in enumerate(spec.get("tls") or []):
        for position, host in enumerate(entry.get("hosts") or []):
            causes += _host(host, f"spec.tls[{index}].hosts[{position}]")
        secret = entry.get("secretName")
        if secret and (problem := subdomain_problem(secret)):
            causes.append(invalid_value(f"spec.tls[{index}].secretName", secret, problem))
    name = spec.get("ingressClassName")
    if name is not None and (problem := subdomain_problem(name)):
        causes.append(invalid_value("spec.ingressClassName", name, problem))
    annotated = (obj["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    if annotated is not None and name is not None and annotated != name:
        message = "must match `ingressClassName` when both are specified"
        causes.append(invalid_value(f"annotations.{CLASS_ANNOTATION}", annotated, message))
    return causes


def _host(host: str, field: str) -> list[ErrorCause]:
    if "*" in host:
        good = host.startswith("*.") and subdomain_problem(host[2:]) is None
        return [] if good else [invalid_value(field, host, _WILDCARD_MESSAGE)]
    problem = subdomain_problem(host)
    return [invalid_value(field, host, problem)] if problem else []


def _rule(rule: JsonObject, field: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    host = rule.get("host")
    if host:
        if _address(host) is not None:
            causes.append(invalid_value(f"{field}.host", host, "must be a DNS name, not an IP address"))
        causes += _host(host, f"{field}.host")
    http = rule.get("http")
    if http is not None:
        paths = http.get("paths") or []
        if not paths:
            causes.append(required(f"{field}.http.paths"))
        for index, path in enumerate(paths):
            causes += _path(path, f"{field}.http.paths[{index}]")
    return causes


def _path(path: JsonObject, field: str) -> list[ErrorCause]:
    kind, text = path.get("pathType"), str(path.get("path", ""))
    if kind is None:
        return [required(f"{field}.pathType", "pathType must be specified")]
    causes: list[ErrorCause] = []
    if kind not in _PATH_TYPES:
        causes.append(not_supported(f"{field}.pathType", kind, _PATH_TYPES))
    elif not text.startswith("/") and (text or kind != "ImplementationSpecific"):
        causes.append(invalid_value(f"{field}.path", text, "must be an absolute path"))
    if kind in ("Exact", "Prefix"):
        problems = [f"must not contain '{part}'" for part in _FORBIDDEN_PARTS if part in text]
        problems += [f"cannot end with '{end}'" for end in ("/..", "/.") if text.endswith(end)]
        causes += [invalid_value(f"{field}.path", text, problem) for problem in problems]
    return causes + _backend(path.get("backend") or {}, f"{field}.backend")


def _backend(backend: JsonObject, field: str) -> list[ErrorCause]:
    service, other = backend.get("service"), backend.get("resource")
    if service is not None and other is not None:
        return [invalid_value(field, "", "cannot set both resource and service backends")]
    if other is not None:
        return [required(f"{field}.resource.{name}") for name in ("kind", "name") if not other.get(name)]
    if service is None:
        return [invalid_value(field, "", "resource or service backend is required")]
    causes: list[ErrorCause] = []
    name = service.get("name", "")
    if not name:
        causes.append(required(f"{field}.service.name"))
    elif problem := label_name_problem(name):
        causes.append(invalid_value(f"{field}.service.name", name, problem))
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        causes.append(invalid_value(field, "", "cannot set both port name & port number"))
    elif port.get("number"):
        if not 1 <= port["number"] <= 65535:
            causes.append(invalid_value(f"{field}.service.port.number", port["number"], PORT_RANGE))
    elif not port.get("name"):
        causes.append(required(field, "port name or number is required"))
    return causes


def validate_ingress_class(obj: JsonObject) -> list[ErrorCause]:
    """Checks that a class names its controller by a domain-prefixed path."""
    controller = (obj.get("spec") or {}).get("controller", "")
    if not controller:
        return [required("spec.controller")]
    if "/" not in controller:
        message = 'must be a domain-prefixed path (such as "acme.io/foo")'
        return [invalid_value("spec.controller", controller, message)]
    return []


def ingress_class_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update does not change the controller of a class."""
    sent = obj["spec"].get("controller")
    if sent != old["spec"].get("controller"):
        return [invalid_value("spec.controller", sent, "field is immutable")]
    return []


def default_network_policy(obj: JsonObject) -> None:
    """Fills the policy types and the protocols of ports in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
        for port in rule.get("ports") or []:
            port.setdefault("protocol", "TCP")


def validate_network_policy(obj: JsonObject) -> list[ErrorCause]:
    """Checks selectors, peers of one kind, ports in range, known policy types."""
    spec = obj["spec"]
    causes = validate_label_selector(spec["podSelector"], "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or []):
            field = f"spec.{direction}[{index}]"
            for position, port in enumerate(rule.get("ports") or []):
                causes += _policy_port(port, f"{field}.ports[{position}]")
            for position, peer in enumerate(rule.get(peers) or []):
                causes += _peer(peer, f"{field}.{peers}[{position}]")
    types = spec["policyTypes"]
    if len(types) > 2:
        causes.append(invalid_value("spec.policyTypes", types, "may not specify more than two policyTypes"))
        return causes
    for index, kind in enumerate(types):
        if kind not in ("Ingress", "Egress"):
            causes.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress")))
    return causes


def _policy_port(port: JsonObject, field: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    if port["protocol"] not in _PROTOCOLS:
        causes.append(not_supported(f"{field}.protocol", port["protocol"], tuple(sorted(_PROTOCOLS))))
    first, last = port.get("port"), port.get("endPort")
    if isinstance(first, int):
        if not 1 <= first <= 65535:
            causes.append(invalid_value(f"{field}.port", first, PORT_RANGE))
        if last is not None and last < first:
            causes.append(invalid_value(f"{field}.endPort", last, "must be greater than or equal to `port`"))
    elif last is not None:
        state = "non-numeric" if first is not None else "not specified"
        causes.append(invalid_value(f"{field}.endPort", last, f"may not be specified when `port` is {state}"))
    return causes


def _peer(peer: JsonObject, field: str) -> list[ErrorCause]:
    if not peer:
        return [required(field, "must specify a peer")]
    causes: list[ErrorCause] = []
    for name in ("podSelector", "namespaceSelector"):
        if peer.get(name) is not None:
            causes += validate_label_selector(peer[name], f"{field}.{name}")
    if (block := peer.get("ipBlock")) is None:
        return causes
    if len(peer) > 1:
        causes.append(forbidden_field(field, "may not specify both ipBlock and another peer"))
    return causes + _block(block, f"{field}.ipBlock")


def _block(block: JsonObject, field: str) -> list[ErrorCause]:
    if not block.get("cidr"):
        return [required(f"{field}.cidr")]
    whole = _network(block["cidr"])
    causes = [] if whole is not None else [invalid_value(f"{field}.cidr", block["cidr"], _CIDR_MESSAGE)]
    for index, text in enumerate(block.get("except") or []):
        part = _network(text)
        if part is None:
            causes.append(invalid_value(f"{field}.except[{index}]", text, _CIDR_MESSAGE))
        elif whole is not None and not _is_strict_subset(part, whole):
            causes.append(
                invalid_value(f"{field}.except[{index}]", text, "must be a strict subset of `cidr`")
            )
    return causes


def _is_strict_subset(part: IpNetwork, whole: IpNetwork) -> bool:
    return part.version == whole.version and part.prefixlen > whole.prefixlen and part[0] in whole


def _network(text: str) -> IpNetwork | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
