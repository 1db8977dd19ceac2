"""LimitRange: fills amounts into new pods that lack them, and checks that amounts lie within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pilothouse_simulator.admission.pod_resources import pod_total
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.quantities import parse_quantity
from pilothouse_simulator.values.resources import LIMIT_RANGES, PODS, ResourceType

JsonObject = dict[str, Any]

_ANNOTATION = "kubernetes.io/limit-ranger"


def _limits(store: ObjectStore, namespace: str, kind: str) -> Iterator[JsonObject]:
    """Yields the limits of one type in force in a namespace."""
    for limit_range in store.list(LIMIT_RANGES, namespace):
        for limit in limit_range["spec"].get("limits") or []:
            if limit.get("type") == kind:
                yield limit


def fill_pod(store: ObjectStore, pod: JsonObject) -> None:
    """Fills requests and limits of the containers, and records that in an annotation."""
    filled: list[str] = []
    for limit in _limits(store, pod["metadata"].get("namespace", ""), "Container"):
        for container in [*(pod["spec"].get("initContainers") or []), *(pod["spec"].get("containers") or [])]:
            for kind, source in (("request", "defaultRequest"), ("limit", "default")):
                names = []
                for name, amount in sorted((limit.get(source) or {}).items()):
                    amounts = container.setdefault("resources", {}).setdefault(f"{kind}s", {})
                    if name not in amounts:
                        amounts[name] = amount
                        names.append(name)
                if names:
                    filled.append(f"{', '.join(names)} {kind} for container {container['name']}")
    if filled:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[_ANNOTATION] = f"LimitRanger plugin set: {'; '.join(filled)}"


def check(store: ObjectStore, resource: ResourceType, obj: JsonObject) -> None:
    """Raises 403 for amounts outside the bounds."""
    namespace = obj["metadata"].get("namespace", "")
    problems: list[str] = []
    if resource is PODS:
        for limit in _limits(store, namespace, "Container"):
            for container in [*obj["spec"]["containers"], *(obj["spec"].get("initContainers") or [])]:
                resources = container.get("resources") or {}
                problems += _outside(limit, resources.get("requests") or {}, resources.get("limits") or {})
        for limit in _limits(store, namespace, "Pod"):
            problems += _outside(limit, _totals(obj, limit, "requests"), _totals(obj, limit, "limits"))
    elif resource.plural == "persistentvolumeclaims":
        requests = (obj["spec"].get("resources") or {}).get("requests") or {}
        for limit in _limits(store, namespace, "PersistentVolumeClaim"):
            problems += _outside(limit, requests, requests)
    if problems:
        message = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise api_errors.forbidden(resource, str(obj["metadata"].get("name", "")), message)


def _totals(pod: JsonObject, limit: JsonObject, kind: str) -> dict[str, str]:
    names = {name for bound in ("min", "max", "maxLimitRequestRatio") for name in limit.get(bound) or {}}
    totals = {name: pod_total(pod, kind, name) for name in names}
    return {name: str(amount) for name, amount in totals.items() if amount}


def _outside(limit: JsonObject, requests: JsonObject, limits: JsonObject) -> list[str]:
    kind = limit["type"]
    problems: list[str] = []
    for name, bound in sorted((limit.get("min") or {}).items()):
        words = f"minimum {name} usage per {kind} is {bound}"
        if name not in requests:
            problems.append(f"{words}.  No request is specified")
        elif _amount(requests[name]) < _amount(bound):
            problems.append(f"{words}, but request is {requests[name]}")
    for name, bound in sorted((limit.get("max") or {}).items()):
        words = f"maximum {name} usage per {kind} is {bound}"
        if name not in limits:
            problems.append(f"{words}.  No limit is specified")
        elif _amount(limits[name]) > _amount(bound):
            problems.append(f"{words}, but limit is {limits[name]}")
    for name, bound in sorted((limit.get("maxLimitRequestRatio") or {}).items()):
        request, most = requests.get(name), limits.get(name)
        words = f"{name} max limit to request ratio per {kind} is {bound}"
        if not request or not most or _amount(request) == 0:
            problems.append(f"{words}, but no request is specified or request is 0")
        elif _amount(most) / _amount(request) > _amount(bound):
            problems.append(f"{words}, but provided ratio is {_amount(most) / _amount(request):.6f}")
    return problems


def _amount(text: str) -> Decimal:
    return parse_quantity(text)


def fill_defaults(obj: JsonObject) -> None:
    """Fills the defaults of a LimitRange in place: a default that it does not name is its bound."""
    for limit in obj.get("spec", {}).get("limits") or []:
        if limit.get("type") != "Container":
            continue
        default = {**(limit.get("max") or {}), **(limit.get("default") or {})}
        request = {**(limit.get("min") or {}), **default, **(limit.get("defaultRequest") or {})}
        for name, amounts in (("default", default), ("defaultRequest", request)):
            if amounts:
                limit[name] = amounts
