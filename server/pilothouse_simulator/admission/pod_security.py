"""Pod Security of a namespace, from its labels `pod-security.kubernetes.io/enforce`, `audit` and `warn`, with versions.

`enforce` refuses only pods: a Deployment is accepted, and its ReplicaSet fails to create pods. `warn` adds a Warning
header to the response for each object with a pod spec that violates the level. A stricter `enforce` label returns
warnings about the existing pods that violate it. `audit` writes to the server's own audit log, which does not exist
here; only its labels are checked. Invalid labels are refused when they are set; an existing invalid `enforce` label
counts as the strictest level.

`pod_security_checks` holds the requirements of the levels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pilothouse_simulator.admission.pod_security_checks import PodSecurityViolation, violations
from pilothouse_simulator.admission.validation_metadata import invalid_value
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.resources import NAMESPACES, PODS, ResourceType

JsonObject = dict[str, Any]

ENFORCE = "pod-security.kubernetes.io/enforce"
WARN = "pod-security.kubernetes.io/warn"
AUDIT = "pod-security.kubernetes.io/audit"
LEVELS = ("privileged", "baseline", "restricted")

_VERSION = re.compile(r"latest|v1\.([0-9]|[1-9][0-9]*)")
# The number of pods that are checked when a level is raised.
_MOST_PODS = 3000


def check(store: ObjectStore, resource: ResourceType, obj: JsonObject, old: JsonObject | None) -> None:
    """Raises ApiError for a pod that its namespace does not allow, and for a namespace with invalid labels."""
    if resource is NAMESPACES:
        causes = _label_causes(obj)
        # A write that changes something else need not correct invalid labels.
        if causes and (old is None or causes != _label_causes(old)):
            raise api_errors.invalid(resource, str(obj["metadata"].get("name", "")), causes)
    elif resource is PODS and (old is None or _images(obj) != _images(old)):
        level, version = _policy(_labels_of_parent(store, obj), ENFORCE)
        if found := violations(level, obj["metadata"], obj["spec"]):
            name = str(obj["metadata"].get("name", ""))
            raise api_errors.forbidden(
                PODS, name, f'violates PodSecurity "{level}:{version}": {_describe(found)}'
            )


def warnings(
    store: ObjectStore, resource: ResourceType, obj: JsonObject, old: JsonObject | None
) -> list[str]:
    """Returns the warnings for the response to a write. `obj` is the stored object, `old` its former version."""
    if resource is NAMESPACES:
        return [] if old is None else _warnings_of_pods(store, obj, old)
    if resource is PODS and (old is None or _images(obj) != _images(old)):
        metadata, spec = obj["metadata"], obj["spec"]
    elif (template := _template_of(obj)) is not None:
        metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    else:
        return []
    level, version = _policy(_labels_of_parent(store, obj), WARN)
    found = violations(level, metadata, spec)
    return [f'would violate PodSecurity "{level}:{version}": {_describe(found)}'] if found else []


def _template_of(obj: JsonObject) -> JsonObject | None:
    """Returns the pod template of a workload; None for other kinds."""
    spec = obj.get("spec") or {}
    holder = (spec.get("jobTemplate") or {}).get("spec") or spec
    template: JsonObject | None = holder.get("template")
    return template


def _policy(labels: JsonObject, mode: str) -> tuple[str, str]:
    """Returns the level and the version of a mode.

    An invalid level is `restricted` for `enforce`, else `privileged`.
    """
    level, version = labels.get(mode, "privileged"), labels.get(f"{mode}-version", "latest")
    if level not in LEVELS:
        level = "restricted" if mode == ENFORCE else "privileged"
    return level, version if _VERSION.fullmatch(version) else "latest"


def _label_causes(namespace: JsonObject) -> list[ErrorCause]:
    labels = namespace["metadata"].get("labels") or {}
    causes = []
    for mode in (ENFORCE, AUDIT, WARN):
        if (level := labels.get(mode)) is not None and level not in LEVELS:
            causes.append(
                invalid_value(f"metadata.labels[{mode}]", level, f"must be one of {', '.join(LEVELS)}")
            )
        key = f"{mode}-version"
        if (version := labels.get(key)) is not None and not _VERSION.fullmatch(version):
            causes.append(invalid_value(f"metadata.labels[{key}]", version, 'must be "latest" or "v1.x"'))
    return causes


def _labels_of_parent(store: ObjectStore, obj: JsonObject) -> JsonObject:
    namespace = store.get(NAMESPACES, None, str(obj["metadata"].get("namespace", "")))
    return (namespace or {"metadata": {}})["metadata"].get("labels") or {}


def _images(pod: JsonObject) -> list[tuple[str, str]]:
    """Returns the changeable fields that make an update be checked again.

    A stricter level does not end existing pods.
    """
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return [(container.get("name", ""), container.get("image", "")) for container in containers]


def _describe(found: Iterable[PodSecurityViolation]) -> str:
    return ", ".join(str(violation) for violation in found)


def _warnings_of_pods(store: ObjectStore, namespace: JsonObject, old: JsonObject) -> list[str]:
    """Returns which existing pods a raised level would refuse: per reason the first pod by name, and how many more."""
    (level, version), before = (
        _policy(each["metadata"].get("labels") or {}, ENFORCE) for each in (namespace, old)
    )
    relaxed = before[1] == version and LEVELS.index(level) <= LEVELS.index(before[0])
    if level == "privileged" or relaxed:
        return []
    name = namespace["metadata"]["name"]
    pods: dict[str, list[str]] = {}
    all_pods = list(store.list(PODS, name))
    for pod in all_pods[:_MOST_PODS]:
        if found := violations(level, pod["metadata"], pod["spec"]):
            reasons = ", ".join(violation.reason for violation in found)
            pods.setdefault(reasons, []).append(pod["metadata"]["name"])
    told = []
    if len(all_pods) > _MOST_PODS:
        told.append(
            f"new PodSecurity enforce level only checked against the first {_MOST_PODS} of {len(all_pods)} "
            "existing pods"
        )
    if pods:
        told.append(
            f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{level}:{version}"'
        )
    return told + sorted(f"{_counted(names)}: {reasons}" for reasons, names in pods.items())


def _counted(names: list[str]) -> str:
    others = len(names) - 1
    more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
    return f"{min(names)}{more}"
