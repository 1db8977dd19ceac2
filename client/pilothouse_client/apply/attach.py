"""Joins Services and ServiceAccounts with the containers they belong to.

A Service belongs to the one container whose pods its selector selects: of those in the same apply, else of
those on the server. Selecting none, or several, cannot be represented, because a platform Service stands
before one container.

A Service is an object of its own in Kubernetes, and so it is here, although the platform keeps it as ports of
a container: applying a Deployment alone leaves the services of other files as they are, applying a Service
alone changes only its container's ports, and a Service whose selector now selects another container moves
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.manifest import (
    DeclaredPort,
    Manifest,
    ManifestAccount,
    ManifestService,
    ManifestWorkload,
)
from pilothouse_manifests.services import is_pod_port_name
from pilothouse_manifests.translator.problems import InputPosition

NO_SERVICE = pb.SERVICE_TYPE_NONE


@dataclass(slots=True)
class WantedContainer:
    """One container as it shall be.

    `fields` names the fields of Container that the input decides; None means all that a manifest can say.
    `releases` are services that the container gives up to another one, which therefore must be changed later
    than this. `along` names the documents that are no objects of the platform but parts of this container.
    """

    place: InputPosition
    container: pb.Container
    fields: frozenset[str] | None = None
    releases: frozenset[str] = field(default_factory=frozenset)
    takes: frozenset[str] = field(default_factory=frozenset)
    along: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.container.name


def attach(manifest: Manifest, existing: Sequence[pb.Container]) -> list[WantedContainer]:
    """The containers that the manifest wants, in the order given, then those it changes only through their services.

    `existing`: the namespace's containers on the server. What belongs nowhere becomes a problem of its
    document.
    """
    workloads = {workload.name: workload for workload in manifest.workloads}
    others = [container for container in existing if container.name not in workloads]
    owners = _owners(manifest, others)
    served = set(owners)
    _check_accounts(manifest, others)

    wanted: list[WantedContainer] = []
    on_server = {container.name: container for container in existing}
    for workload in manifest.workloads:
        services = [each for each in manifest.services if owners.get(each.name) == workload.name]
        before = on_server.get(workload.name)
        ports = _ports(workload.declared, services, _kept(before, served), workload.name)
        container = pb.Container()
        container.CopyFrom(workload.container)
        container.ports.extend(_with_node_ports(ports, before))
        accounts = [each for each in manifest.accounts if each.name == container.service_account]
        wanted.append(_wanted(workload.place, container, None, before, [*services, *accounts]))
    for container in others:
        services = [each for each in manifest.services if owners.get(each.name) == container.name]
        if not services and not any(_service_of(port, container) in served for port in container.ports):
            continue
        ports = _ports(_declared(container), services, _kept(container, served), container.name)
        changed = pb.Container(name=container.name, ports=_with_node_ports(ports, container))
        place = services[0].place if services else _place_of_moved(manifest, container)
        wanted.append(_wanted(place, changed, frozenset({"ports"}), container, services))
    return wanted


def service_name(port: pb.Port, container_name: str) -> str:
    """Name of the Service that a port makes; empty if it makes none."""
    return "" if port.service_type == NO_SERVICE else port.service_name or container_name


def _wanted(
    place: InputPosition,
    container: pb.Container,
    fields: frozenset[str] | None,
    before: pb.Container | None,
    along: Iterable[ManifestService | ManifestAccount],
) -> WantedContainer:
    old = {_service_of(port, before) for port in before.ports} - {""} if before is not None else set()
    new = {_service_of(port, container) for port in container.ports} - {""}
    names = tuple(each.reporter.subject for each in along)
    return WantedContainer(place, container, fields, frozenset(old - new), frozenset(new - old), names)


def _service_of(port: pb.Port, container: pb.Container) -> str:
    return service_name(port, container.name)


def _place_of_moved(manifest: Manifest, container: pb.Container) -> InputPosition:
    names = {_service_of(port, container) for port in container.ports}
    return next(service.place for service in manifest.services if service.name in names)


def _owners(manifest: Manifest, others: Sequence[pb.Container]) -> dict[str, str]:
    """Container name by service name; a service that has no single owner is reported and left out."""
    owners: dict[str, str] = {}
    for service in manifest.services:
        here = [each for each in manifest.workloads if _selects(service.selector, each.pod_labels)]
        there = [each for each in others if _selects(service.selector, each.labels)]
        names = [each.name for each in here] + [f"{each.name} on the server" for each in there]
        if not names:
            message = (
                "cannot be represented: it selects no container, neither of these files nor on the server"
            )
            service.reporter.unusable(service.place, "spec.selector", message)
        elif len(names) > 1:
            message = f"cannot be represented: it selects several containers ({', '.join(names)})"
            service.reporter.unusable(service.place, "spec.selector", message)
        else:
            owner, declared, labels = _owner(here, there)
            _check_labels(service, owner, labels)
            if _resolved(service, owner, declared):
                owners[service.name] = owner
    return owners


def _owner(
    here: Sequence[ManifestWorkload], there: Sequence[pb.Container]
) -> tuple[str, Sequence[DeclaredPort], Mapping[str, str]]:
    if here:
        return here[0].name, here[0].declared, here[0].container.labels
    return there[0].name, _declared(there[0]), there[0].labels


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _check_labels(service: ManifestService, owner: str, labels: Mapping[str, str]) -> None:
    for key, entry in service.labels.items():
        if labels.get(key) != entry.text:
            message = f"cannot be represented: services carry the labels of container/{owner}, which lacks it"
            service.reporter.unsupported(entry.place, entry.path, message)


def _resolved(service: ManifestService, owner: str, declared: Sequence[DeclaredPort]) -> bool:
    """Whether every target port is a number or names a declared port."""
    for port in service.ports:
        if isinstance(port.target, str) and _target(port.target, port.protocol, declared) is None:
            message = f"expected the name of a port of container/{owner}, found {port.target!r}"
            service.reporter.invalid(port.place, port.path, message)
    return service.reporter.usable


def _target(name: str, protocol: pb.Protocol.ValueType, declared: Sequence[DeclaredPort]) -> int | None:
    return next((each.number for each in declared if (each.name, each.protocol) == (name, protocol)), None)


def _check_accounts(manifest: Manifest, others: Sequence[pb.Container]) -> None:
    used = {workload.container.service_account for workload in manifest.workloads}
    used.update(container.service_account for container in others)
    for account in manifest.accounts:
        if account.name not in used:
            message = "cannot be represented: no container uses it, and the platform makes accounts for containers only"
            account.reporter.unusable(account.place, "", message)


def _kept(before: pb.Container | None, served: set[str]) -> list[pb.Port]:
    """Service ports on the server that belong to no Service of these files."""
    if before is None:
        return []
    return [port for port in before.ports if _service_of(port, before) not in served | {""}]


def _declared(container: pb.Container) -> list[DeclaredPort]:
    """The ports that the pods of a container on the server declare, as the server derives them: one per number and
    protocol, with the first name and host port given."""
    declared: dict[tuple[int, pb.Protocol.ValueType], DeclaredPort] = {}
    for port in container.ports:
        protocol = port.protocol or pb.PROTOCOL_TCP
        known = declared.get((port.container_port, protocol))
        declared[port.container_port, protocol] = DeclaredPort(
            port.container_port,
            protocol,
            (known.name if known is not None else "") or (port.name if is_pod_port_name(port.name) else ""),
            (known.host_port if known is not None else 0) or port.host_port,
        )
    return list(declared.values())


def _ports(
    declared: Sequence[DeclaredPort], services: Iterable[ManifestService], kept: Iterable[pb.Port], owner: str
) -> list[pb.Port]:
    """The ports of a container: those of its services, and those it declares without one.

    A port's name is both the pod's and the service's. Where they differ, one more port without a service
    carries the pod's; it stands first, because the first name counts on the pod.
    """
    known = {(each.number, each.protocol): each for each in declared}
    made: list[pb.Port] = []
    for service in services:
        for port in service.ports:
            number = (
                port.target
                if isinstance(port.target, int)
                else _target(port.target, port.protocol, declared) or port.number
            )
            of_pod = known.get((number, port.protocol))
            made.append(
                pb.Port(
                    name=port.name or (of_pod.name if of_pod is not None else ""),
                    container_port=number,
                    host_port=of_pod.host_port if of_pod is not None else 0,
                    protocol=port.protocol,
                    service_name=service.name,
                    service_port=port.number,
                    node_port=port.node_port,
                    service_type=service.service_type,
                    app_protocol=port.app_protocol,
                    service_annotations=service.annotations,
                )
            )
    for port_before in kept:
        of_pod = known.get((port_before.container_port, port_before.protocol or pb.PROTOCOL_TCP))
        copy = pb.Port()
        copy.CopyFrom(port_before)
        copy.service_name = port_before.service_name or owner
        copy.host_port = of_pod.host_port if of_pod is not None else 0
        made.append(copy)
    alone = [
        pb.Port(
            name=each.name,
            container_port=each.number,
            host_port=each.host_port,
            protocol=each.protocol,
            service_type=NO_SERVICE,
        )
        for each in declared
        if not _carried(each, made)
    ]
    return alone + made


def _carried(declared: DeclaredPort, made: Iterable[pb.Port]) -> bool:
    """Whether the ports of services already give the pod this port under this name."""
    same = [
        port
        for port in made
        if (port.container_port, port.protocol or pb.PROTOCOL_TCP) == (declared.number, declared.protocol)
    ]
    first = next((port.name for port in same if is_pod_port_name(port.name)), "")
    return bool(same) and declared.name in ("", first)


def _with_node_ports(ports: list[pb.Port], before: pb.Container | None) -> list[pb.Port]:
    """A node port that the cluster chose stays: a manifest that names none does not ask for another one."""
    if before is None:
        return ports
    chosen = {
        (
            _service_of(port, before),
            port.service_port or port.container_port,
            port.protocol or pb.PROTOCOL_TCP,
        ): port
        for port in before.ports
    }
    for port in ports:
        old = chosen.get((port.service_name, port.service_port, port.protocol))
        if old is not None and not port.node_port and old.service_type == port.service_type:
            port.node_port = old.node_port
    return ports
