"""Defaults and checks of PodDisruptionBudgets, Roles and RoleBindings.

No recording shows them. The checks follow Kubernetes' `pkg/apis/policy/validation/validation.go` and
`pkg/apis/rbac/validation/validation.go`.
"""

from __future__ import annotations

import re
from typing import Any

from pilothouse_simulator.admission.validation_metadata import (
    invalid_value,
    not_supported,
    path_segment_problem,
    required,
    subdomain_problem,
    validate_label_selector,
)
from pilothouse_simulator.admission.validation_pods import non_negative
from pilothouse_simulator.values.api_errors import ErrorCause

JsonObject = dict[str, Any]

RBAC_GROUP = "rbac.authorization.k8s.io"
_PERCENT = re.compile(r"[0-9]+%")
_PERCENT_MESSAGE = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)


def default_budget(obj: JsonObject) -> None:
    """Fills the status of a PodDisruptionBudget in place: its numbers are never absent."""
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    for name in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(name, 0)


def validate_budget(obj: JsonObject) -> list[ErrorCause]:
    """Checks that a budget has at most one of the two limits, as a number or a percentage of at most 100."""
    spec = obj["spec"]
    causes: list[ErrorCause] = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        causes.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for name in ("minAvailable", "maxUnavailable"):
        value = spec.get(name)
        if isinstance(value, str):
            if not _PERCENT.fullmatch(value):
                causes.append(invalid_value(f"spec.{name}", value, _PERCENT_MESSAGE))
            elif int(value[:-1]) > 100:
                causes.append(invalid_value(f"spec.{name}", value, "must not be greater than 100%"))
        else:
            causes += non_negative(value, f"spec.{name}")
    if spec.get("selector") is not None:
        causes += validate_label_selector(spec["selector"], "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy not in (None, "AlwaysAllow", "IfHealthyBudget"):
        supported = ("AlwaysAllow", "IfHealthyBudget")
        causes.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, supported))
    return causes


def validate_role(obj: JsonObject) -> list[ErrorCause]:
    """Checks that the rules of a role have verbs, groups and resources."""
    causes: list[ErrorCause] = []
    for index, rule in enumerate(obj.get("rules") or []):
        field = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{field}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            urls = rule["nonResourceURLs"]
            message = "namespaced rules cannot apply to non-resource URLs"
            causes.append(invalid_value(f"{field}.nonResourceURLs", urls, message))
            continue
        if not rule.get("apiGroups"):
            message = "resource rules must supply at least one api group"
            causes.append(required(f"{field}.apiGroups", message))
        if not rule.get("resources"):
            message = "resource rules must supply at least one resource"
            causes.append(required(f"{field}.resources", message))
    return causes


def default_role_binding(obj: JsonObject) -> None:
    """Fills the API groups of the role and of the subjects in place."""
    reference = obj.setdefault("roleRef", {})
    if not reference.get("apiGroup"):
        reference["apiGroup"] = RBAC_GROUP
    for subject in obj.get("subjects") or []:
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = RBAC_GROUP


def validate_role_binding(obj: JsonObject) -> list[ErrorCause]:
    """Checks that a binding names a role and has subjects of known kinds."""
    reference = obj["roleRef"]
    causes: list[ErrorCause] = []
    if reference["apiGroup"] != RBAC_GROUP:
        causes.append(not_supported("roleRef.apiGroup", reference["apiGroup"], (RBAC_GROUP,)))
    if reference.get("kind") not in ("Role", "ClusterRole"):
        causes.append(not_supported("roleRef.kind", reference.get("kind", ""), ("ClusterRole", "Role")))
    name = reference.get("name", "")
    if not name:
        causes.append(required("roleRef.name"))
    elif problem := path_segment_problem(name):
        causes.append(invalid_value("roleRef.name", name, problem))
    for index, subject in enumerate(obj.get("subjects") or []):
        causes += _subject(subject, f"subjects[{index}]")
    return causes


def _subject(subject: JsonObject, field: str) -> list[ErrorCause]:
    name, kind, group = subject.get("name", ""), subject.get("kind", ""), subject.get("apiGroup", "")
    causes = [] if name else [required(f"{field}.name")]
    if kind == "ServiceAccount":
        if name and (problem := subdomain_problem(name)):
            causes.append(invalid_value(f"{field}.name", name, problem))
        if group:
            causes.append(not_supported(f"{field}.apiGroup", group, ("",)))
    elif kind in ("User", "Group"):
        if group != RBAC_GROUP:
            causes.append(not_supported(f"{field}.apiGroup", group, (RBAC_GROUP,)))
    else:
        causes.append(not_supported(f"{field}.kind", kind, ("Group", "ServiceAccount", "User")))
    return causes


def role_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update does not change the role of a binding."""
    if obj["roleRef"] != old["roleRef"]:
        return [invalid_value("roleRef", obj["roleRef"], "cannot change roleRef")]
    return []
