"""Validation of the workload kinds that keep pods running: Deployments, ReplicaSets, StatefulSets, DaemonSets.

The checks of StatefulSets and DaemonSets without a recording follow Kubernetes'
`pkg/apis/apps/validation/validation.go`.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.admission.validation_metadata import (
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    validate_label_selector,
)
from pilothouse_simulator.admission.validation_pods import (
    non_negative,
    validate_template,
    validate_template_metadata,
)
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.selectors import selector_matches

JsonObject = dict[str, Any]

_IMMUTABLE = "field is immutable"
_CHANGEABLE_OF_STATEFUL_SETS = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_IMMUTABLE_STATEFUL_SET = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_RETENTION = ("Delete", "Retain")


def _validate_replicated(obj: JsonObject, kind: str) -> list[ErrorCause]:
    """Checks replicas, selector and template of the kinds that keep pods running."""
    spec = obj["spec"]
    causes = non_negative(spec.get("replicas"), "spec.replicas")
    causes += non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    selector = spec.get("selector")
    template = spec.get("template") or {}
    labels = template.get("metadata", {}).get("labels") or {}
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        selector_causes = validate_label_selector(selector, "spec.selector")
        causes += selector_causes
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            message = f"empty selector is invalid for {kind}"
            causes.append(invalid_value("spec.selector", selector, message))
        if selector_causes:
            return [*causes, invalid_value("spec.selector", selector, "invalid label selector")]
    if not selector_matches(selector, labels):
        message = "`selector` does not match template `labels`"
        causes.append(invalid_value("spec.template.metadata.labels", labels, message))
    if kind == "statefulset":
        # Such pods may mount claims of the StatefulSet that no volume of the template names. The real server checks
        # only the template's metadata too.
        causes += validate_template_metadata(template, "spec.template")
    else:
        causes += validate_template(template, "spec.template")
    policy = template.get("spec", {}).get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        causes.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    return causes


def validate_replica_set(obj: JsonObject) -> list[ErrorCause]:
    """Checks a ReplicaSet whose defaults are filled."""
    return _validate_replicated(obj, "deployment")


def validate_deployment(obj: JsonObject) -> list[ErrorCause]:
    """Checks a Deployment whose defaults are filled."""
    spec = obj["spec"]
    causes = _validate_replicated(obj, "deployment")
    strategy = spec.get("strategy") or {}
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind not in ("RollingUpdate", "Recreate"):
        causes.append(not_supported("spec.strategy.type", kind, ("Recreate", "RollingUpdate")))
    elif kind == "Recreate" and rolling is not None:
        message = "Forbidden: may not be specified when strategy `type` is 'Recreate'"
        causes.append(ErrorCause("FieldValueForbidden", message, "spec.strategy.rollingUpdate"))
    elif kind == "RollingUpdate":
        causes += _validate_rolling_update(rolling or {})
    causes += non_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    deadline = spec.get("progressDeadlineSeconds")
    causes += non_negative(deadline, "spec.progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        message = "must be greater than minReadySeconds"
        causes.append(invalid_value("spec.progressDeadlineSeconds", deadline, message))
    return causes


def _validate_rolling_update(rolling: JsonObject) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    zeros = 0
    for name in ("maxUnavailable", "maxSurge"):
        value = rolling.get(name)
        field = f"spec.strategy.rollingUpdate.{name}"
        if isinstance(value, str):
            number = value.removesuffix("%")
            if not value.endswith("%") or not number.isdigit():
                message = "a valid percent string must be a numeric string followed by an ending '%'"
                causes.append(invalid_value(field, value, message))
                continue
            zeros += int(number) == 0
        elif isinstance(value, int):
            causes += non_negative(value, field)
            zeros += value == 0
    if zeros == 2:
        message = "may not be 0 when `maxSurge` is 0"
        causes.append(
            invalid_value("spec.strategy.rollingUpdate.maxUnavailable", rolling["maxUnavailable"], message)
        )
    return causes


def selector_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update does not change the selector of a workload."""
    selector = obj["spec"].get("selector")
    if selector != old["spec"].get("selector"):
        return [invalid_value("spec.selector", selector, _IMMUTABLE)]
    return []


def validate_stateful_set(obj: JsonObject) -> list[ErrorCause]:
    """Checks a StatefulSet whose defaults are filled."""
    spec = obj["spec"]
    causes: list[ErrorCause] = []
    policy = spec["podManagementPolicy"]
    if policy not in ("OrderedReady", "Parallel"):
        causes.append(not_supported("spec.podManagementPolicy", policy, ("OrderedReady", "Parallel")))
    strategy = spec["updateStrategy"]
    if strategy["type"] not in ("RollingUpdate", "OnDelete"):
        causes.append(
            not_supported("spec.updateStrategy.type", strategy["type"], ("OnDelete", "RollingUpdate"))
        )
    elif strategy["type"] == "OnDelete" and strategy.get("rollingUpdate") is not None:
        message = "only allowed for updateStrategy 'RollingUpdate'"
        causes.append(invalid_value("spec.updateStrategy.rollingUpdate", strategy["rollingUpdate"], message))
    partition = (strategy.get("rollingUpdate") or {}).get("partition")
    causes += non_negative(partition, "spec.updateStrategy.rollingUpdate.partition")
    for name, value in spec["persistentVolumeClaimRetentionPolicy"].items():
        if value not in _RETENTION:
            field = f"spec.persistentVolumeClaimRetentionPolicy.{name}"
            causes.append(not_supported(field, value, _RETENTION))
    causes += non_negative((spec.get("ordinals") or {}).get("start"), "spec.ordinals.start")
    causes += non_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    causes += _validate_replicated(obj, "statefulset")
    if spec["template"]["spec"].get("activeDeadlineSeconds") is not None:
        message = "activeDeadlineSeconds in StatefulSet is not Supported"
        causes.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", message))
    return causes


def stateful_set_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update changes only the mutable fields of a StatefulSet's spec."""
    fixed, before = (
        {name: value for name, value in each["spec"].items() if name not in _CHANGEABLE_OF_STATEFUL_SETS}
        for each in (obj, old)
    )
    return [forbidden_field("spec", _IMMUTABLE_STATEFUL_SET)] if fixed != before else []


def validate_daemon_set(obj: JsonObject) -> list[ErrorCause]:
    """Checks a DaemonSet whose defaults are filled."""
    spec = obj["spec"]
    causes = _validate_replicated(obj, "daemonset")
    if spec["template"]["spec"].get("activeDeadlineSeconds") is not None:
        message = "activeDeadlineSeconds in DaemonSet is not Supported"
        causes.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", message))
    causes += non_negative(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    strategy = spec["updateStrategy"]
    if strategy["type"] not in ("RollingUpdate", "OnDelete"):
        supported = ("OnDelete", "RollingUpdate")
        return [*causes, not_supported("spec.updateStrategy.type", strategy["type"], supported)]
    if strategy["type"] == "OnDelete":
        return causes
    field = "spec.updateStrategy.rollingUpdate"
    rolling = strategy["rollingUpdate"]
    unavailable, surge = (rolling[name] not in (0, "0%") for name in ("maxUnavailable", "maxSurge"))
    if not unavailable and not surge:
        causes.append(required(f"{field}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    elif unavailable and surge:
        message = "may not be set when maxUnavailable is non-zero"
        causes.append(invalid_value(f"{field}.maxSurge", rolling["maxSurge"], message))
    return causes
