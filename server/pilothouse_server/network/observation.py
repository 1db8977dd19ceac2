"""Computes the observed state of a Service from the objects on a cluster; pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.objects import EndpointSlice
from pilothouse_server.kubernetes.objects import Service as ServiceObject
from pilothouse_server.network.manifests import NO_ADDRESS, selector_of
from pilothouse_server.network.model import ObservedService, Service, ServiceStatus
from pilothouse_server.values.resources import Condition

# Status, reason and message.
_Shown = tuple[ServiceStatus, str, str]


def observe(
    service: Service,
    found: ServiceObject | None,
    slices: Iterable[EndpointSlice] | None,
    conditions: tuple[Condition, ...] | None = None,
) -> ObservedService:
    """Returns the observed state of a Service, given its object `found` and its EndpointSlices.

    `slices`: None if they are not known now. `conditions` replace the stored ones.
    """
    before = service.observed
    stated = before.conditions if conditions is None else conditions
    ready, endpoints = (before.ready_endpoints, before.endpoints) if slices is None else _counted(slices)
    shown = msgspec.structs.replace(
        before,
        addresses=() if found is None else _addresses(found),
        node_ports=() if found is None else _node_ports(service, found),
        ready_endpoints=0 if found is None else ready,
        endpoints=0 if found is None else endpoints,
        conditions=stated,
    )
    status, reason, message = _status(service, found, shown)
    return msgspec.structs.replace(shown, status=status, reason=reason, message=message)


def _status(service: Service, found: ServiceObject | None, shown: ObservedService) -> _Shown:
    applied = next((each for each in shown.conditions if each.type == APPLIED), None)
    if service.deletion_requested_at is not None:
        return "deleted", "", ""
    if applied is not None and applied.status == "False":
        return "failed", applied.reason, applied.message
    if found is None:
        return ("pending", "", "") if applied is None else ("pending", applied.reason, applied.message)
    if service.type == "LoadBalancer" and not found.status.load_balancer.ingress:
        return "pending", "WaitingForLoadBalancer", "the cluster has not given it an address yet"
    if service.spec.containers and not service.container_uids:
        return "active", "ContainerNotFound", f'there is no container "{service.spec.containers[0]}"'
    if selector_of(service) and not shown.ready_endpoints and service.type != "ExternalName":
        return "active", "NoReadyEndpoints", "no ready pod matches its selector"
    return "active", "", ""


def _counted(slices: Iterable[EndpointSlice]) -> tuple[int, int]:
    """Returns how many pods are ready, and how many exist; a pod may be in several slices."""
    ready: set[str] = set()
    known: set[str] = set()
    for each in slices:
        for endpoint in each.endpoints or ():
            uid = "" if endpoint.target_ref is None else endpoint.target_ref.uid
            key = uid or next(iter(endpoint.addresses), "")
            known.add(key)
            if endpoint.conditions.ready is not False:
                ready.add(key)
    return len(ready), len(known)


def _addresses(found: ServiceObject) -> tuple[str, ...]:
    spec = found.spec
    if spec.type == "ExternalName":
        return (spec.external_name,)
    inside = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    outside = (each.ip or each.hostname for each in found.status.load_balancer.ingress)
    return tuple(dict.fromkeys(each for each in (*inside, *outside) if each not in ("", NO_ADDRESS)))


def _node_ports(service: Service, found: ServiceObject) -> tuple[int, ...]:
    there = {(port.port, port.protocol): port.node_port for port in found.spec.ports}
    ports = tuple(there.get((port.port, port.protocol), 0) for port in service.spec.ports)
    return ports if any(ports) else ()
