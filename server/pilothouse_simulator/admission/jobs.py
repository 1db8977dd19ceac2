"""Defaults and checks of Jobs, and the selector and labels that the server sets.

Paths and wording are recorded (20 to 22b). Not recorded: `maxFailedIndexes`, `podReplacementPolicy` and the other
immutable fields follow Kubernetes' `pkg/apis/batch/validation/validation.go`.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.admission.defaults_pods import default_template
from pilothouse_simulator.admission.validation_metadata import invalid_value, not_supported, required
from pilothouse_simulator.admission.validation_pods import non_negative, validate_template
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.selectors import selector_matches

JsonObject = dict[str, Any]

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
_LEGACY_CONTROLLER_UID, _LEGACY_JOB_NAME = "controller-uid", "job-name"
_NO_LIMIT = 2**31 - 1
_IMMUTABLE = "field is immutable"
_MISMATCH = "`selector` does not match template `labels`"
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex",
    "maxFailedIndexes", "ttlSecondsAfterFinished",
)  # fmt: skip
_FIXED = (
    "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy",
)  # fmt: skip


def default_job(obj: JsonObject) -> None:
    """Fills the defaults of a Job in place. A Job without labels shares those of its template."""
    spec = obj.setdefault("spec", {})
    default_job_spec(spec)
    labels = spec["template"]["metadata"].get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = labels
    obj.setdefault("status", {})


def default_job_spec(spec: JsonObject) -> None:
    """Fills the defaults of a Job's spec in place."""
    default_template(spec)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 6 if spec.get("backoffLimitPerIndex") is None else _NO_LIMIT
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    policy = spec.get("podFailurePolicy")
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed" if policy is None else "Failed")
    for rule in (policy or {}).get("rules") or []:
        for pattern in rule.get("onPodConditions") or []:
            pattern.setdefault("status", "True")


def server_labels(metadata: JsonObject) -> dict[str, str]:
    """Returns the labels by which a Job identifies its pods, in the order in which the real server checks them."""
    uid, name = metadata["uid"], metadata["name"]
    return {_LEGACY_CONTROLLER_UID: uid, _LEGACY_JOB_NAME: name, CONTROLLER_UID: uid, JOB_NAME: name}


def initialize(obj: JsonObject) -> None:
    """Sets the selector of a new Job and the labels of its template in place, unless the Job has a manual selector."""
    obj["status"] = {}
    spec = obj["spec"]
    if spec["manualSelector"] or not obj["metadata"].get("name"):
        return
    labels = spec["template"]["metadata"].setdefault("labels", {})
    labels |= server_labels(obj["metadata"])
    selected = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    selected[CONTROLLER_UID] = obj["metadata"]["uid"]
    obj["metadata"]["labels"] = copy_json(obj["metadata"].get("labels") or labels)


def validate_job(obj: JsonObject) -> list[ErrorCause]:
    """Checks a Job whose defaults are filled."""
    spec, labels = obj["spec"], obj["spec"]["template"]["metadata"].get("labels")
    causes: list[ErrorCause] = []
    name = str(obj["metadata"].get("name", ""))
    if not spec["manualSelector"] and name:
        wanted = server_labels(obj["metadata"])
        for key, value in wanted.items():
            if (labels or {}).get(key) != value:
                message = f"must be '{value}'"
                causes.append(required(f"spec.template.metadata.labels[{key}]", message))
        if not selector_matches(spec.get("selector"), wanted):
            causes.append(
                invalid_value("spec.selector", spec.get("selector"), "`selector` not auto-generated")
            )
    if spec["completionMode"] == "Indexed" and spec.get("completions"):
        last = f"{name}-{spec['completions'] - 1}"
        if len(last) > 63:
            message = f"will not able to create pod with invalid DNS label: {last}"
            causes.append(invalid_value("metadata.name", name, message))
    return causes + _selector_causes(spec) + validate_job_spec(spec, "spec")


def _selector_causes(spec: JsonObject) -> list[ErrorCause]:
    labels = spec["template"]["metadata"].get("labels")
    if spec["manualSelector"] and spec.get("selector") is None:
        return [required("spec.selector")]
    if not selector_matches(spec.get("selector"), labels or {}):
        return [invalid_value("spec.template.metadata.labels", labels, _MISMATCH)]
    return []


def validate_job_spec(spec: JsonObject, field: str) -> list[ErrorCause]:
    """Checks a Job's spec except for its selector."""
    causes: list[ErrorCause] = []
    for name in _COUNTS:
        causes += non_negative(spec.get(name), f"{field}.{name}")
    causes += validate_template(spec["template"], f"{field}.template")
    causes += _validate_indexes(spec, field)
    path = f"{field}.template.spec.restartPolicy"
    policy = spec["template"]["spec"]["restartPolicy"]
    if policy == "Always":
        causes.append(required(path, 'valid values: "OnFailure", "Never"'))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        message = 'only "Never" is supported when podFailurePolicy is specified'
        causes.append(invalid_value(path, policy, message))
    replacement = spec.get("podReplacementPolicy")
    supported = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    if replacement is not None and replacement not in supported:
        causes.append(not_supported(f"{field}.podReplacementPolicy", replacement, supported))
    return causes


def _validate_indexes(spec: JsonObject, field: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in ("Indexed", "NonIndexed"):
        causes.append(not_supported(f"{field}.completionMode", mode, ("Indexed", "NonIndexed")))
    elif mode == "Indexed" and spec.get("completions") is None:
        causes.append(required(f"{field}.completions", "when completion mode is Indexed"))
    elif mode == "NonIndexed":
        causes += [
            invalid_value(f"{field}.{name}", spec[name], "requires indexed completion mode")
            for name in ("backoffLimitPerIndex", "successPolicy")
            if spec.get(name) is not None
        ]
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        causes.append(required(f"{field}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    return causes


def job_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks an update of a Job: most fields never change; parts of the template may while the Job is suspended and not
    yet started.
    """
    new_spec, old_spec = obj["spec"], old["spec"]
    # The real server checks the selector twice at an update.
    causes = _selector_causes(new_spec)
    causes += [
        invalid_value(f"spec.{name}", new_spec.get(name), _IMMUTABLE)
        for name in _FIXED
        if new_spec.get(name) != old_spec.get(name)
    ]
    completions = new_spec.get("completions")
    elastic = new_spec["completionMode"] == "Indexed" and completions == new_spec["parallelism"]
    if completions != old_spec.get("completions") and not elastic:
        causes.append(invalid_value("spec.completions", completions, _IMMUTABLE))
    before, after = copy_json(old_spec["template"]), copy_json(new_spec["template"])
    if old_spec["suspend"] and "startTime" not in old["status"]:
        for template in (before, after):
            _remove_changeable(template)
    if before != after:
        causes.append(invalid_value("spec.template", new_spec["template"], _IMMUTABLE))
    return causes


def _remove_changeable(template: JsonObject) -> None:
    """Removes from a template the fields that a suspended Job may change: where its pods run, and their resources."""
    template["metadata"] = {}
    spec = template["spec"]
    for name in ("nodeSelector", "tolerations", "schedulingGates"):
        spec.pop(name, None)
    if spec.get("affinity"):
        spec["affinity"].pop("nodeAffinity", None)
    if not spec.get("affinity"):
        spec.pop("affinity", None)
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        container.pop("resources", None)
