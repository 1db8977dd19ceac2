"""Computes whether an object works from the `status` that its controller reports; pure functions, one for each kind.

Kinds without an entry follow the conventions of the Kubernetes API: `observedGeneration`, and the conditions Ready,
Available, Stalled and so on. A status may have any form; a part of an unexpected form is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from pilothouse_manifests.carried import GATEWAY, RBAC
from pilothouse_server.objects.model import ObjectHealth

_REASON_LIMIT, _MESSAGE_LIMIT = 100, 4096
_WAITING_FOR_ADDRESS: Final = (
    "progressing",
    "WaitingForAddress",
    "its controller has not given it an address yet",
)
_NO_CONTROLLER: Final = ("unknown", "NoController", "no controller of the cluster has reported on it")


class ReportedHealth(msgspec.Struct, frozen=True):
    """The health, and the cause if the object is not healthy."""

    health: ObjectHealth
    reason: str = ""
    message: str = ""


HEALTHY: Final = ReportedHealth("healthy")


def health(kind: tuple[str, str], status: Any, generation: int) -> ReportedHealth:
    """Returns the health of an object on the cluster, by its group and kind."""
    reported = status if isinstance(status, dict) else {}
    if (seen := _int(reported.get("observedGeneration"))) and seen < generation:
        return ReportedHealth(
            "progressing", "NotObservedYet", "its controller has not seen the last change yet"
        )
    found = _OF_KINDS.get(kind, _by_conventions)(reported)
    return ReportedHealth(found.health, found.reason[:_REASON_LIMIT], found.message[:_MESSAGE_LIMIT])


def addresses(kind: tuple[str, str], status: Any) -> tuple[str, ...]:
    """Returns the addresses and host names in the status of an Ingress or a Gateway."""
    reported = status if isinstance(status, dict) else {}
    if kind == ("networking.k8s.io", "Ingress"):
        balancer = reported.get("loadBalancer")
        items = _list(balancer.get("ingress") if isinstance(balancer, dict) else None)
        found = [_text(each.get("ip")) or _text(each.get("hostname")) for each in items]
    elif kind == (GATEWAY, "Gateway"):
        found = [_text(each.get("value")) for each in _list(reported.get("addresses"))]
    else:
        found = []
    return tuple(dict.fromkeys(each[:253] for each in found if each))[:64]


def _ingress(status: dict[str, Any]) -> ReportedHealth:
    if addresses(("networking.k8s.io", "Ingress"), status):
        return HEALTHY
    return ReportedHealth(*_WAITING_FOR_ADDRESS)


def _gateway(status: dict[str, Any]) -> ReportedHealth:
    conditions = _conditions(status)
    for wanted in ("Accepted", "Programmed"):
        found = conditions.get(wanted)
        if found is not None and found["status"] == "False":
            pending = found["reason"] in ("Pending", "AddressNotAssigned")
            return _as("progressing" if pending else "degraded", found)
    programmed = conditions.get("Programmed")
    if programmed is None or programmed["reason"] == "Pending":
        return ReportedHealth(*_NO_CONTROLLER)
    return HEALTHY if programmed["status"] == "True" else _as("progressing", programmed)


def _route(status: dict[str, Any]) -> ReportedHealth:
    parents = _list(status.get("parents"))
    if not parents:
        return ReportedHealth(*_NO_CONTROLLER)
    for parent in parents:
        conditions = _conditions(parent)
        for wanted in ("Accepted", "ResolvedRefs"):
            found = conditions.get(wanted)
            if found is None:
                return ReportedHealth(*_NO_CONTROLLER)
            if found["status"] != "True":
                return _as("degraded", found)
    return HEALTHY


def _budget(status: dict[str, Any]) -> ReportedHealth:
    healthy, desired = _int(status.get("currentHealthy")), _int(status.get("desiredHealthy"))
    found = _conditions(status).get("DisruptionAllowed")
    if found is not None and found["reason"] == "SyncFailed":
        return _as("degraded", found)
    if healthy < desired:
        words = f"{healthy} pods are healthy, {desired} must be"
        return ReportedHealth("degraded", "InsufficientPods", words)
    return HEALTHY if status else ReportedHealth(*_NO_CONTROLLER)


def _autoscaler(status: dict[str, Any]) -> ReportedHealth:
    conditions = _conditions(status)
    if not conditions:
        return ReportedHealth("progressing", "NotObservedYet", "its controller has not reported on it yet")
    for wanted in ("AbleToScale", "ScalingActive"):
        found = conditions.get(wanted)
        # A stopped target cannot be scaled, which is not a fault.
        if found is not None and found["status"] == "False" and found["reason"] != "ScalingDisabled":
            return _as("degraded", found)
    return HEALTHY


def _passive(_status: dict[str, Any]) -> ReportedHealth:
    """Returns healthy: no controller reports on objects of this kind, and they work as soon as they exist."""
    return HEALTHY


def _by_conventions(status: dict[str, Any]) -> ReportedHealth:
    conditions = _conditions(status)
    for wanted in ("Stalled", "Failed", "Degraded"):
        if (found := conditions.get(wanted)) is not None and found["status"] == "True":
            return _as("degraded", found)
    if (found := conditions.get("Reconciling")) is not None and found["status"] == "True":
        return _as("progressing", found)
    for wanted in ("Ready", "Available", "Healthy", "Succeeded", "Synced"):
        if (found := conditions.get(wanted)) is not None:
            return HEALTHY if found["status"] == "True" else _as("progressing", found)
    return ReportedHealth("unknown", "NotReported", "its status has no condition that shows whether it works")


_OF_KINDS: Final[dict[tuple[str, str], Callable[[dict[str, Any]], ReportedHealth]]] = {
    ("", "ServiceAccount"): _passive,
    ("networking.k8s.io", "NetworkPolicy"): _passive,
    (RBAC, "Role"): _passive,
    (RBAC, "RoleBinding"): _passive,
    ("networking.k8s.io", "Ingress"): _ingress,
    (GATEWAY, "Gateway"): _gateway,
    (GATEWAY, "HTTPRoute"): _route,
    ("policy", "PodDisruptionBudget"): _budget,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
}


def _as(word: ObjectHealth, condition: dict[str, str]) -> ReportedHealth:
    return ReportedHealth(word, condition["reason"] or condition["type"], condition["message"])


def _conditions(status: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Returns the conditions by type, with every part converted to text."""
    found = {}
    for each in _list(status.get("conditions")):
        condition = {key: _text(each.get(key)) for key in ("type", "status", "reason", "message")}
        if condition["type"]:
            found[condition["type"]] = condition
    return found


def _list(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _int(value: Any) -> int:
    return value if type(value) is int else 0
