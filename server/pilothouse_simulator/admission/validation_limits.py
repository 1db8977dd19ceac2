"""Validation of ResourceQuotas, LimitRanges, Leases and HorizontalPodAutoscalers."""

from __future__ import annotations

import re
from typing import Any

from pilothouse_simulator.admission.validation_metadata import invalid_value, not_supported, required
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.quantities import parse_quantity

JsonObject = dict[str, Any]

_PLAIN_NAMES = frozenset({
    "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage", "limits.cpu",
    "limits.memory", "requests.ephemeral-storage", "limits.ephemeral-storage", "configmaps", "persistentvolumeclaims",
    "pods", "replicationcontrollers", "resourcequotas", "secrets", "services", "services.loadbalancers",
    "services.nodeports",
})  # fmt: skip
_WHOLE = frozenset({
    "configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services",
    "services.loadbalancers", "services.nodeports",
})  # fmt: skip
_SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
)
_LIMIT_TYPES = ("Container", "PersistentVolumeClaim", "Pod")


def validate_resource_quota(obj: JsonObject) -> list[ErrorCause]:
    """Checks that a quota has known names, whole numbers for counts, and nothing below zero."""
    causes: list[ErrorCause] = []
    for name, amount in (obj["spec"].get("hard") or {}).items():
        field = f"spec.hard[{name}]"
        counts = name in _WHOLE or name.startswith("count/") or name.endswith("/persistentvolumeclaims")
        if name not in _PLAIN_NAMES and "/" not in name:
            causes.append(invalid_value(field, name, "must be a standard resource for quota"))
        value = parse_quantity(amount)
        if value < 0:
            causes.append(invalid_value(field, amount, "must be greater than or equal to 0"))
        elif counts and value != value.to_integral_value():
            causes.append(invalid_value(field, amount, "must be an integer"))
    for index, scope in enumerate(obj["spec"].get("scopes") or []):
        if scope not in _SCOPES:
            causes.append(not_supported(f"spec.scopes[{index}]", scope, _SCOPES))
    return causes


def validate_limit_range(obj: JsonObject) -> list[ErrorCause]:
    """Checks that a LimitRange has known types, each once, with defaults between their bounds."""
    causes: list[ErrorCause] = []
    seen: set[str] = set()
    for index, limit in enumerate(obj["spec"].get("limits") or []):
        field = f"spec.limits[{index}]"
        kind = limit.get("type", "")
        if kind not in _LIMIT_TYPES and not re.fullmatch(r"[\w.-]+/[\w.-]+", kind):
            causes.append(not_supported(f"{field}.type", kind, _LIMIT_TYPES))
        if kind in seen:
            causes.append(ErrorCause("FieldValueDuplicate", f'Duplicate value: "{kind}"', f"{field}.type"))
        seen.add(kind)
        causes += _ordered(limit, ("min", "defaultRequest", "default", "max"), field)
    return causes


def _ordered(limit: JsonObject, names: tuple[str, ...], field: str) -> list[ErrorCause]:
    """Checks that no amount is above those that follow it in `names`."""
    causes: list[ErrorCause] = []
    for position, lower in enumerate(names):
        for upper in names[position + 1 :]:
            for resource, amount in (limit.get(lower) or {}).items():
                most = (limit.get(upper) or {}).get(resource)
                if most is not None and parse_quantity(amount) > parse_quantity(most):
                    message = f"{lower} value {amount} is greater than {upper} value {most}"
                    causes.append(invalid_value(f"{field}.{lower}[{resource}]", amount, message))
    return causes


def validate_lease(obj: JsonObject) -> list[ErrorCause]:
    """Checks that the duration of a Lease is above zero and its transitions are not negative."""
    spec = obj.get("spec") or {}
    causes: list[ErrorCause] = []
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        causes.append(invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        message = "must be greater than or equal to 0"
        causes.append(invalid_value("spec.leaseTransitions", transitions, message))
    return causes


def validate_autoscaler(obj: JsonObject) -> list[ErrorCause]:
    """Checks that an autoscaler has a target, and that its bounds are in order."""
    spec = obj.get("spec") or {}
    target = spec.get("scaleTargetRef") or {}
    causes = [required(f"spec.scaleTargetRef.{name}") for name in ("kind", "name") if not target.get(name)]
    lowest, highest = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if lowest < 1:
        causes.append(invalid_value("spec.minReplicas", lowest, "must be greater than or equal to 1"))
    if highest < 1:
        causes.append(invalid_value("spec.maxReplicas", highest, "must be greater than 0"))
    elif highest < lowest:
        causes.append(
            invalid_value("spec.maxReplicas", highest, "must be greater than or equal to `minReplicas`")
        )
    return causes
