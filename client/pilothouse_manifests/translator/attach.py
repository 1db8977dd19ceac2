"""Joins Services that containers own with their containers.

A Service is an object of its own, unless a container on the server owns a Service of that name by its ports, as imports
and the short form of the API create it. Such a Service belongs to the one container whose pods its selector selects:
first among the containers of the same apply, then among those on the server. If it selects none or several, or has a
field that ports do not have, it cannot be represented.

Applying a Deployment alone leaves the services of other files unchanged. Applying a Service alone changes only its
container's ports. A Service whose selector now selects another container moves there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pilothouse_manifests.extra_fields import SELECTOR_EXPRESSIONS
from pilothouse_manifests.fields import Values
from pilothouse_manifests.services import HEADLESS, SPEC, TYPES, is_pod_port_name
from pilothouse_manifests.table import fields_of
from pilothouse_manifests.translator.manifest import (
    DeclaredPort,
    Manifest,
    ManifestService,
    ManifestWorkload,
)
from pilothouse_manifests.translator.nodes import InputPosition

# Fields of a Service that the ports of a container have.
_SHORT_FORM = {"name", "type", "selector", "ports", "headless", "labels", "annotations"}
# The service type of a port without a Service.
NO_SERVICE = "None"
_TCP = "TCP"


@dataclass(slots=True)
class WantedContainer:
    """The desired state of one container, as values by the names of a container.

    `fields` names the fields of Container that the input decides; None means all that a manifest can contain.
    `releases` are services that the container gives up to another container, which must be changed after this one.
    `along` names the documents that are not objects of the platform but parts of this container. `carried` has the
    positions of the fields that the API does not name, by the paths of `extra_fields`. `document`: kind and name of the
    container's document; empty if only its services change.
    """

    place: InputPosition
    values: Values
    fields: frozenset[str] | None = None
    releases: frozenset[str] = field(default_factory=frozenset)
    takes: frozenset[str] = field(default_factory=frozenset)
    along: tuple[str, ...] = ()
    carried: Mapping[str, InputPosition] = field(default_factory=dict)
    document: str = ""

    @property
    def name(self) -> str:
        return str(self.values["name"])

    @property
    def subject(self) -> str:
        """The subject of problems: its document, or the container."""
        return self.document or f"container/{self.name}"


def attach(manifest: Manifest, existing: Sequence[Values]) -> list[WantedContainer]:
    """Returns the manifest's containers in the given order, then the containers of which only the services change.

    `existing`: the namespace's containers on the server. A document that belongs to no container becomes a problem.
    """
    workloads = {workload.name: workload for workload in manifest.workloads}
    others = [container for container in existing if container["name"] not in workloads]
    owners = _owners(manifest, others)
    served = set(owners)

    wanted: list[WantedContainer] = []
    on_server = {container["name"]: container for container in existing}
    for workload in manifest.workloads:
        services = [each for each in manifest.services if owners.get(each.name) == workload.name]
        before = on_server.get(workload.name)
        ports = _ports(workload.declared, services, _kept(before, served), workload.name)
        container = {**workload.values, "ports": _with_node_ports(ports, before)}
        if before is not None and SELECTOR_EXPRESSIONS not in before.get("extra_fields", {}):
            # A selector is immutable: it stays as it was created.
            extra = {**container.get("extra_fields", {})}
            extra.pop(SELECTOR_EXPRESSIONS, None)
            container["extra_fields"] = extra
        one = _wanted(workload.place, container, None, before, services)
        reporter = workload.reporter
        wanted.append(replace(one, carried=reporter.carried_at, document=reporter.subject))
    for container in others:
        services = [each for each in manifest.services if owners.get(each.name) == container["name"]]
        if not services and not served & _services_of(container):
            continue
        ports = _ports(_declared(container), services, _kept(container, served), container["name"])
        changed = {"name": container["name"], "ports": _with_node_ports(ports, container)}
        place = services[0].place if services else _place_of_moved(manifest, container)
        wanted.append(_wanted(place, changed, frozenset({"ports"}), container, services))
    return wanted


def in_order_of_services(wanted: Sequence[WantedContainer]) -> list[WantedContainer]:
    """Returns the containers, each after those that release the Services it takes; otherwise in the given order.

    Two containers that exchange Services have no such order.
    """
    ordered: list[WantedContainer] = []
    waiting = list(wanted)
    while waiting:
        ready = next((each for each in waiting if not _waits(each, waiting)), waiting[0])
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def _waits(wanted: WantedContainer, waiting: Iterable[WantedContainer]) -> bool:
    return bool(wanted.takes) and any(
        wanted.takes & other.releases for other in waiting if other is not wanted
    )


def owned_services(containers: Iterable[Values]) -> frozenset[str]:
    """Returns the names of the Services that containers on the server own by their ports."""
    return frozenset(name for container in containers for name in _services_of(container))


def _service_of(port: Values, container_name: str) -> str:
    """Returns the name of the Service that a port creates; empty if it creates none."""
    if port.get("service_type") == NO_SERVICE:
        return ""
    return port.get("service_name") or container_name


def _services_of(container: Values) -> frozenset[str]:
    """Returns the names of the Services that the ports of a container create."""
    made = (_service_of(port, container["name"]) for port in container.get("ports", ()))
    return frozenset(name for name in made if name)


def _wanted(
    place: InputPosition,
    container: Values,
    fields: frozenset[str] | None,
    before: Values | None,
    along: Iterable[ManifestService],
) -> WantedContainer:
    old = _services_of(before) if before is not None else frozenset()
    new = _services_of(container)
    names = tuple(each.reporter.subject for each in along)
    return WantedContainer(place, container, fields, old - new, new - old, names)


def _place_of_moved(manifest: Manifest, container: Values) -> InputPosition:
    names = _services_of(container)
    return next(service.place for service in manifest.services if service.name in names)


def _owners(manifest: Manifest, others: Sequence[Values]) -> dict[str, str]:
    """Returns container names by service name; a service without a single owner is reported and left out."""
    owners: dict[str, str] = {}
    for service in manifest.services:
        _check_short_form(service)
        here = [each for each in manifest.workloads if _selects(service.selector, each.pod_labels)]
        there = [each for each in others if _selects(service.selector, each.get("labels", {}))]
        names = [each.name for each in here] + [f"{each['name']} on the server" for each in there]
        if not names:
            message = (
                "cannot be represented: it selects no container, neither of these files nor on the server"
            )
            refused = (each for each in manifest.refused if _selects(service.selector, each.pod_labels))
            follows = next((f"{each.subject}: " for each in refused), "")
            service.reporter.unusable(service.place, "spec.selector", message, follows=follows)
        elif len(names) > 1:
            message = f"cannot be represented: it selects several containers ({', '.join(names)})"
            service.reporter.unusable(service.place, "spec.selector", message)
        else:
            owner, declared, labels = _owner(here, there)
            _check_labels(service, owner, labels)
            if _resolved(service, owner, declared):
                owners[service.name] = owner
    return owners


def _check_short_form(service: ManifestService) -> None:
    """Reports each field that the ports of a container do not have."""
    words = f"cannot be represented: a container owns service/{service.name} by its ports, which do not support it"
    for entry in fields_of(SPEC.entries):
        value = service.values.get(entry.name, entry.default)
        if entry.name not in _SHORT_FORM and value != entry.default:
            service.reporter.unsupported(*service.spec.at(entry.key), words)
    if service.service_type not in (*TYPES, HEADLESS):
        service.reporter.unusable(*service.spec.at("type"), words)
    for port in service.ports:
        if port.protocol == "SCTP":
            service.reporter.unusable(port.place, port.path, f"{words}: SCTP")


def _owner(
    here: Sequence[ManifestWorkload], there: Sequence[Values]
) -> tuple[str, Sequence[DeclaredPort], Mapping[str, str]]:
    if here:
        return here[0].name, here[0].declared, here[0].values["labels"]
    return there[0]["name"], _declared(there[0]), there[0].get("labels", {})


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _check_labels(service: ManifestService, owner: str, labels: Mapping[str, str]) -> None:
    for key, entry in service.labels.items():
        if labels.get(key) != entry.text:
            message = (
                f"cannot be represented: services get the labels of container/{owner}, which does not have it"
            )
            service.reporter.unsupported(entry.place, entry.path, message)


def _resolved(service: ManifestService, owner: str, declared: Sequence[DeclaredPort]) -> bool:
    """Returns whether every target port is a number or names a declared port; reports the others."""
    for port in service.ports:
        if isinstance(port.target, str) and _target(port.target, port.protocol, declared) is None:
            message = (
                f"expected the name of a port of container/{owner} with this protocol, found {port.target!r}"
            )
            service.reporter.invalid(port.place, port.path, message)
    return service.reporter.usable


def _target(name: str, protocol: str, declared: Sequence[DeclaredPort]) -> int | None:
    return next((each.number for each in declared if (each.name, each.protocol) == (name, protocol)), None)


def _kept(before: Values | None, served: set[str]) -> list[Values]:
    """Returns the service ports on the server that belong to no Service of these files."""
    if before is None:
        return []
    ports = before.get("ports", ())
    return [port for port in ports if _service_of(port, before["name"]) not in served | {""}]


def _declared(container: Values) -> list[DeclaredPort]:
    """Returns the ports that the pods of a container on the server declare, as the server derives them.

    There is one port for each number and protocol, with the first given name and host port."""
    declared: dict[tuple[int, str], DeclaredPort] = {}
    for port in container.get("ports", ()):
        at = _pod_port(port)
        known, name = declared.get(at), port.get("name", "")
        declared[at] = DeclaredPort(
            *at,
            (known.name if known is not None else "") or (name if is_pod_port_name(name) else ""),
            (known.host_port if known is not None else 0) or port.get("host_port", 0),
        )
    return list(declared.values())


def _pod_port(port: Values) -> tuple[int, str]:
    return port["container_port"], port.get("protocol", _TCP)


def _ports(
    declared: Sequence[DeclaredPort], services: Iterable[ManifestService], kept: Iterable[Values], owner: str
) -> list[Values]:
    """Returns the ports of a container: those of its services, and those that it declares without a service.

    A port's name is both the pod's and the service's. If the two differ, an additional port without a service has the
    pod's name. It comes first, because the first name counts on the pod.
    """
    known = {(each.number, each.protocol): each for each in declared}
    made: list[Values] = []
    for service in services:
        for port in service.ports:
            number = (
                port.target
                if isinstance(port.target, int)
                else _target(port.target, port.protocol, declared) or port.number
            )
            of_pod = known.get((number, port.protocol))
            made.append(
                {
                    "name": port.name or (of_pod.name if of_pod is not None else ""),
                    "container_port": number,
                    "host_port": of_pod.host_port if of_pod is not None else 0,
                    "protocol": port.protocol,
                    "service_name": service.name,
                    "service_port": port.number,
                    "node_port": port.node_port,
                    "service_type": service.service_type,
                    "app_protocol": port.app_protocol,
                    "service_annotations": service.annotations,
                }
            )
    for port_before in kept:
        of_pod = known.get(_pod_port(port_before))
        made.append(
            {
                **port_before,
                "service_name": port_before.get("service_name") or owner,
                "host_port": of_pod.host_port if of_pod is not None else 0,
            }
        )
    alone: list[Values] = [
        {
            "name": each.name,
            "container_port": each.number,
            "host_port": each.host_port,
            "protocol": each.protocol,
            "service_type": NO_SERVICE,
        }
        for each in declared
        if not _carried(each, made)
    ]
    return alone + made


def _carried(declared: DeclaredPort, made: Iterable[Values]) -> bool:
    """Returns whether the ports of services already give the pod this port under this name."""
    same = [port for port in made if _pod_port(port) == (declared.number, declared.protocol)]
    names = (port.get("name", "") for port in same)
    first = next((name for name in names if is_pod_port_name(name)), "")
    return bool(same) and declared.name in ("", first)


def _with_node_ports(ports: list[Values], before: Values | None) -> list[Values]:
    """Adds the node ports that the cluster chose: a manifest without a node port does not request another one."""
    if before is None:
        return ports
    chosen = {
        _service_port(port, _service_of(port, before["name"])): port for port in before.get("ports", ())
    }
    for port in ports:
        old = chosen.get(_service_port(port, port.get("service_name", "")))
        if (
            old is not None
            and not port.get("node_port")
            and old.get("service_type") == port.get("service_type")
        ):
            port["node_port"] = old.get("node_port", 0)
    return ports


def _service_port(port: Values, service: str) -> tuple[str, int, str]:
    return service, port.get("service_port") or port["container_port"], port.get("protocol", _TCP)
