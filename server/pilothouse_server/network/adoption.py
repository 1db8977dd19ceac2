"""Adopts drift of a Service: changes by others on the cluster become desired values. Pure functions.

A field is adopted only if a Service has it, the rules allow it, and it needs no permission, because no caller is there
to check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from pilothouse_manifests.fields import Entry, Field, Group
from pilothouse_manifests.reading import read
from pilothouse_manifests.services import SPEC
from pilothouse_manifests.sources import ObjectSource
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.network import manifests, rules
from pilothouse_server.network.model import PublishedPort, Service, ServiceFields, ServiceType

# Given the stored and the wanted Service, raises PilothouseError if the change is not allowed.
Allowed = Callable[[Service, Service], None]

_METADATA = re.compile(r"\.metadata\.(?P<map>labels|annotations)\.(?P<key>.+)")
_SPEC = re.compile(r"\.spec\.(?P<key>\w+)(?P<rest>.*)", re.DOTALL)


def adopt(service: Service, live: Manifest, paths: Sequence[str], allowed: Allowed) -> Service:
    """Returns the Service with the fields at `paths` taken from the live object.

    Fields that break a rule, or that `allowed` refuses, stay as they are.
    """
    for path in paths:
        candidate = _with(service, live, path)
        try:
            candidate = rules.checked(candidate)
            allowed(service, candidate)
        except PilothouseError:
            continue
        service = candidate
    return service


def is_adopted(service: Service, live: Manifest, path: str) -> bool:
    """Returns whether the desired value of a field is the one on the cluster."""
    said, there = (field_paths.value_at(each, path) for each in (manifests.manifest(service), live))
    return bool(said == there)


def read_spec(live: Manifest) -> tuple[ServiceType, ServiceFields, tuple[str, ...]]:
    """Returns type and spec of a live object, and the fields that cannot be represented."""
    problems: list[str] = []
    with ObjectSource(live.get("spec"), "spec", problems) as source:
        # The cluster allocates these.
        source.ignore("clusterIPs", "healthCheckNodePort")
        values = read(SPEC, source) or {}
    type_ = msgspec.convert(values.pop("type", "ClusterIP"), ServiceType)
    return type_, msgspec.convert(values, ServiceFields), tuple(problems)


def _with(service: Service, live: Manifest, path: str) -> Service:
    if found := _METADATA.fullmatch(path):
        return _with_key(service, live, path, found["map"], found["key"])
    found = _SPEC.fullmatch(path)
    if found is None:
        return service
    type_, spec, _ = read_spec(live)
    if found["key"] == "type":
        return msgspec.structs.replace(service, type=type_)
    if found["key"] == "selector" and service.spec.containers:
        # The Service names a container, so its selector cannot have further labels.
        return service
    if found["key"] == "ports":
        ports = tuple(_port(service, each, found["rest"]) for each in spec.ports)
        return msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, ports=ports))
    changed = {name: getattr(spec, name) for name in _NAMES.get(found["key"], ())}
    return msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, **changed))


def _port(service: Service, there: PublishedPort, rest: str) -> PublishedPort:
    """Returns a port as it is on the cluster, but with a node port only if somebody chose it."""
    if rest.endswith(".nodePort"):
        return there
    known = {(port.port, port.protocol): port.node_port for port in service.spec.ports}
    return msgspec.structs.replace(there, node_port=known.get((there.port, there.protocol), 0))


def _with_key(service: Service, live: Manifest, path: str, name: str, key: str) -> Service:
    values: dict[str, str] = dict(getattr(service, name))
    if key not in values:
        return service
    value = field_paths.value_at(live, path)
    if value is None:
        del values[key]
    else:
        values[key] = value
    return msgspec.structs.replace(service, **{name: values})


def _names(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, Field):
            yield entry.name if entry.name != "cluster_ip" else "headless"
        elif isinstance(entry, Group):
            yield from _names(entry.entries)


# The names of the values that each key of a Service's spec contains.
_NAMES: Final = {
    entry.key: tuple(_names((entry,))) for entry in SPEC.entries if isinstance(entry, Field | Group)
}
