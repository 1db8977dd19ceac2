"""The simulated gateway controller: the status of GatewayClasses, Gateways and HTTPRoutes of its own class.

The Gateway API is not part of Kubernetes. `gateway_definitions.json` contains its definitions as the project ships them
(github.com/kubernetes-sigs/gateway-api, channel standard, without descriptions; Apache-2.0). Statuses have the form
that a controller wrote in recording 31. Reasons are those of the API's specification (`GatewayConditionReason`,
`ListenerConditionReason`, `RouteConditionReason` of its package `apis/v1`). This controller writes no status for
classes of other controllers, so their objects keep the defaults of their definitions.

A route is accepted by a listener of its Gateway that allows its namespace and shares a hostname with it. Its backends
are resolved if their Services exist in its own namespace; ReferenceGrants and namespace selectors are not simulated.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from pilothouse_simulator.controllers.conditions import with_conditions
from pilothouse_simulator.controllers.controller import Controller
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.resources import SECRETS, SERVICES, ResourceType

JsonObject = dict[str, Any]
# Plural, namespace, name.
GatewayKey = tuple[str, str, str]

GATEWAY_GROUP = "gateway.networking.k8s.io"
CONTROLLER_NAME = "simulate.pilothouse.dev/gateway"
GATEWAY_CLASS = "simulated"
# An address from the block for documentation (RFC 5737), like that of the Ingresses.
GATEWAY_ADDRESS = "192.0.2.2"
_MANAGER = "gateway-controller"
_FILE = Path(__file__).with_name("gateway_definitions.json")
_CLASSES, _GATEWAYS, _ROUTES = "gatewayclasses", "gateways", "httproutes"


@cache
def gateway_definitions() -> tuple[JsonObject, ...]:
    """Returns the CustomResourceDefinitions of the Gateway API. Treat them as immutable."""
    return tuple(json.loads(_FILE.read_text()))


def gateway_class() -> JsonObject:
    """Returns the GatewayClass of the simulated controller."""
    return {
        "apiVersion": f"{GATEWAY_GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": GATEWAY_CLASS},
        "spec": {"controllerName": CONTROLLER_NAME},
    }


class GatewayController(Controller[GatewayKey]):
    """Syncs GatewayClasses, Gateways and HTTPRoutes."""

    def observe(self, event: StoreEvent) -> None:
        resource = event.resource
        if resource.group == GATEWAY_GROUP:
            self.enqueue(_key(resource, event.object))
            if resource.plural == _CLASSES:
                self._enqueue_all(_GATEWAYS, None)
            if resource.plural in (_CLASSES, _GATEWAYS):
                self._enqueue_all(_ROUTES, None)
            elif resource.plural == _ROUTES:
                self._enqueue_all(_GATEWAYS, None)
        elif event.type != "MODIFIED" and resource in (SERVICES, SECRETS):
            namespace = event.object["metadata"]["namespace"]
            self._enqueue_all(_ROUTES if resource is SERVICES else _GATEWAYS, namespace)

    def _enqueue_all(self, plural: str, namespace: str | None) -> None:
        resource = self._type(plural)
        for obj in self.store.list(resource, namespace) if resource is not None else ():
            self.enqueue((plural, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))

    def _type(self, plural: str) -> ResourceType | None:
        return self.store.types.custom(GATEWAY_GROUP, plural)

    def sync(self, key: GatewayKey) -> None:
        """Writes the status of one object."""
        plural, namespace, name = key
        resource = self._type(plural)
        obj = self.store.get(resource, namespace, name) if resource is not None else None
        if resource is None or obj is None or "deletionTimestamp" in obj["metadata"]:
            return
        before: JsonObject = obj.get("status") or {}
        status = {_CLASSES: self._class_status, _GATEWAYS: self._gateway_status, _ROUTES: self._route_status}[
            plural
        ](obj, before)
        if status is not None and status != before:
            self.store.update_status(resource, {**obj, "status": status}, _MANAGER)

    def _class_status(self, obj: JsonObject, before: JsonObject) -> JsonObject | None:
        if obj["spec"]["controllerName"] != CONTROLLER_NAME:
            return None
        accepted = _condition(obj, "Accepted", "Accepted", "the class is of this controller")
        return {**before, "conditions": self._merged(before, [accepted])}

    def _is_ours(self, gateway: JsonObject) -> bool:
        resource = self._type(_CLASSES)
        found = (
            self.store.get(resource, None, gateway["spec"]["gatewayClassName"])
            if resource is not None
            else None
        )
        return found is not None and found["spec"]["controllerName"] == CONTROLLER_NAME

    def _gateway_status(self, gateway: JsonObject, before: JsonObject) -> JsonObject | None:
        if not self._is_ours(gateway):
            return None
        known = {entry["name"]: entry for entry in before.get("listeners") or []}
        listeners: list[JsonObject] = []
        for listener in gateway["spec"]["listeners"]:
            problem = self._certificate_problem(gateway, listener)
            conditions = [
                _condition(gateway, "Accepted", "Accepted", ""),
                _condition(
                    gateway, "Programmed", "Invalid" if problem else "Programmed", "", holds=not problem
                ),
                _condition(
                    gateway,
                    "ResolvedRefs",
                    "InvalidCertificateRef" if problem else "ResolvedRefs",
                    problem,
                    holds=not problem,
                ),
            ]
            listeners.append(
                {
                    "name": listener["name"],
                    "attachedRoutes": self._attached(gateway, listener),
                    "supportedKinds": [{"group": GATEWAY_GROUP, "kind": "HTTPRoute"}],
                    "conditions": self._merged(known.get(listener["name"], {}), conditions),
                }
            )
        conditions = [
            _condition(gateway, "Accepted", "Accepted", ""),
            _condition(gateway, "Programmed", "Programmed", ""),
        ]
        return {
            **before,
            "addresses": [{"type": "IPAddress", "value": GATEWAY_ADDRESS}],
            "conditions": self._merged(before, conditions),
            "listeners": listeners,
        }

    def _certificate_problem(self, gateway: JsonObject, listener: JsonObject) -> str:
        namespace = gateway["metadata"]["namespace"]
        for reference in (listener.get("tls") or {}).get("certificateRefs") or []:
            if reference.get("namespace", namespace) != namespace:
                return f'secret "{reference["namespace"]}/{reference["name"]}" is in another namespace'
            if self.store.get(SECRETS, namespace, reference["name"]) is None:
                return f'secret "{reference["name"]}" not found'
        return ""

    def _attached(self, gateway: JsonObject, listener: JsonObject) -> int:
        resource = self._type(_ROUTES)
        routes = self.store.list(resource) if resource is not None else []
        return sum(
            _refers(route, reference, gateway) and _listens(gateway, listener, route, reference) == ""
            for route in routes
            for reference in route["spec"].get("parentRefs") or []
        )

    def _route_status(self, route: JsonObject, before: JsonObject) -> JsonObject | None:
        others = [
            entry for entry in before.get("parents") or [] if entry["controllerName"] != CONTROLLER_NAME
        ]
        known = [entry for entry in before.get("parents") or [] if entry["controllerName"] == CONTROLLER_NAME]
        ours: list[JsonObject] = []
        for reference in route["spec"].get("parentRefs") or []:
            gateway = self._gateway_of(route, reference)
            if gateway is None:
                continue
            reason = _refused(gateway, route, reference)
            problem = self._backend_problem(route)
            conditions = [
                _condition(route, "Accepted", reason or "Accepted", "", holds=not reason),
                _condition(
                    route,
                    "ResolvedRefs",
                    "BackendNotFound" if problem else "ResolvedRefs",
                    problem,
                    holds=not problem,
                ),
            ]
            earlier: JsonObject = next((entry for entry in known if entry["parentRef"] == reference), {})
            entry = {"parentRef": reference, "controllerName": CONTROLLER_NAME}
            ours.append({**entry, "conditions": self._merged(earlier, conditions)})
        return {**before, "parents": others + ours} if ours or known else None

    def _gateway_of(self, route: JsonObject, reference: JsonObject) -> JsonObject | None:
        resource = self._type(_GATEWAYS)
        if resource is None or (reference.get("group"), reference.get("kind")) != (GATEWAY_GROUP, "Gateway"):
            return None
        namespace = reference.get("namespace", route["metadata"]["namespace"])
        gateway = self.store.get(resource, namespace, reference["name"])
        return gateway if gateway is not None and self._is_ours(gateway) else None

    def _backend_problem(self, route: JsonObject) -> str:
        namespace = route["metadata"]["namespace"]
        for rule in route["spec"].get("rules") or []:
            for backend in rule.get("backendRefs") or []:
                inside = backend.get("namespace", namespace) == namespace
                if not inside or self.store.get(SERVICES, namespace, backend["name"]) is None:
                    return f'service "{backend["name"]}" not found'
        return ""

    def _merged(self, before: JsonObject, conditions: list[JsonObject]) -> list[JsonObject]:
        return with_conditions(before.get("conditions"), conditions, format_time(self.clock.now()))


def create_gateway_class(store: ObjectStore) -> None:
    """Creates the class of the simulated controller, once its kind is served."""
    resource = store.types.custom(GATEWAY_GROUP, _CLASSES)
    if resource is not None and store.get(resource, None, GATEWAY_CLASS) is None:
        store.create(resource, gateway_class())


def _key(resource: ResourceType, obj: JsonObject) -> GatewayKey:
    return resource.plural, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _condition(obj: JsonObject, kind: str, reason: str, message: str, *, holds: bool = True) -> JsonObject:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message,
        "observedGeneration": obj["metadata"]["generation"],
    }


def _refers(route: JsonObject, reference: JsonObject, gateway: JsonObject) -> bool:
    metadata = gateway["metadata"]
    namespace = reference.get("namespace", route["metadata"]["namespace"])
    return (reference.get("kind"), namespace, reference["name"]) == (
        "Gateway",
        metadata["namespace"],
        metadata["name"],
    )


def _refused(gateway: JsonObject, route: JsonObject, reference: JsonObject) -> str:
    """Returns the reason why no listener of a Gateway accepts a route; empty if one accepts it."""
    reasons = [_listens(gateway, listener, route, reference) for listener in gateway["spec"]["listeners"]]
    if "" in reasons:
        return ""
    ordered = ("NoMatchingListenerHostname", "NotAllowedByListeners", "NoMatchingParent")
    return next(reason for reason in ordered if reason in reasons)


def _listens(gateway: JsonObject, listener: JsonObject, route: JsonObject, reference: JsonObject) -> str:
    """Returns the reason why a listener does not accept a route; empty if it does."""
    for name, own in (("sectionName", listener["name"]), ("port", listener["port"])):
        if reference.get(name) not in (None, own):
            return "NoMatchingParent"
    allowed = (listener.get("allowedRoutes") or {}).get("namespaces", {}).get("from", "Same")
    if allowed == "Same" and route["metadata"]["namespace"] != gateway["metadata"]["namespace"]:
        return "NotAllowedByListeners"
    host, wanted = listener.get("hostname"), route["spec"].get("hostnames") or []
    if host and wanted and not any(_overlap(host, name) for name in wanted):
        return "NoMatchingListenerHostname"
    return ""


def _overlap(first: str, second: str) -> bool:
    """Returns whether two hostnames, which may begin with a wildcard, have a name in common."""
    if first == second:
        return True
    if first.startswith("*."):
        return second.endswith(first[1:])
    return second.startswith("*.") and first.endswith(second[1:])
