"""Validation of pod specs, in pods and in templates, and of changes of a running pod."""

from __future__ import annotations

import re
from typing import Any

from pilothouse_simulator.admission.validation_metadata import (
    forbidden_field,
    invalid_value,
    label_name_problem,
    not_supported,
    required,
    subdomain_problem,
    validate_annotations,
    validate_labels,
)
from pilothouse_simulator.admission.validation_security import (
    validate_pod_security_context,
    validate_security_context,
)
from pilothouse_simulator.admission.validation_volumes import validate_volumes
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.quantities import parse_quantity

JsonObject = dict[str, Any]

PORT_RANGE = "must be between 1 and 65535, inclusive"
_PORT_NAME = re.compile(r"^(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$")
_PORT_NAME_MESSAGE = "must be a lowercase IANA service name of at most 15 characters with at least one letter"
_IMMUTABLE_MESSAGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
    "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def non_negative(value: Any, field: str) -> list[ErrorCause]:
    """Checks that a number is not below zero; None is valid."""
    if value is not None and value < 0:
        return [invalid_value(field, value, "must be greater than or equal to 0")]
    return []


def validate_template(template: JsonObject, field: str) -> list[ErrorCause]:
    """Checks a pod template."""
    causes = validate_template_metadata(template, field)
    if (template.get("spec") or {}).get("ephemeralContainers"):
        # The text is that of Kubernetes 1.36 (ValidatePodTemplateSpec).
        path = f"{field}.spec.ephemeralContainers"
        causes.append(forbidden_field(path, "ephemeral containers not allowed in pod template"))
    return causes + validate_pod_spec(template.get("spec") or {}, f"{field}.spec")


def validate_template_metadata(template: JsonObject, field: str) -> list[ErrorCause]:
    """Checks the metadata of a pod template. The path of its labels lacks `metadata`, as in the real server."""
    metadata = template.get("metadata") or {}
    causes = validate_labels(metadata.get("labels"), f"{field}.labels")
    return causes + validate_annotations(metadata.get("annotations"), f"{field}.annotations")


def validate_new_pod(spec: JsonObject) -> list[ErrorCause]:
    """Checks that a new pod has no ephemeral containers: a subresource adds them later (recording 27)."""
    if spec.get("ephemeralContainers"):
        return [forbidden_field("spec.ephemeralContainers", "cannot be set on create")]
    return []


def validate_pod_spec(spec: JsonObject, field: str) -> list[ErrorCause]:
    """Checks a pod spec whose defaults are filled."""
    causes: list[ErrorCause] = []
    volumes, volume_causes = validate_volumes(spec.get("volumes") or [], f"{field}.volumes")
    causes += volume_causes
    containers = spec.get("containers") or []
    if not containers:
        causes.append(required(f"{field}.containers"))
    names: set[str] = set()
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or []):
            path = f"{field}.{kind}[{index}]"
            causes += _validate_container(container, path, volumes, names)
            if kind == "initContainers":
                causes += _validate_init_container(container, path)
    policy = spec.get("restartPolicy")
    if policy not in ("Always", "OnFailure", "Never"):
        causes.append(not_supported(f"{field}.restartPolicy", policy, ("Always", "OnFailure", "Never")))
    if spec.get("dnsPolicy") not in ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"):
        supported = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
        causes.append(not_supported(f"{field}.dnsPolicy", spec.get("dnsPolicy"), supported))
    causes += validate_pod_security_context(spec.get("securityContext"), f"{field}.securityContext")
    causes += validate_labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    for name in ("nodeName", "serviceAccountName"):
        value = spec.get(name)
        problem = subdomain_problem(value) if value else None
        if problem:
            causes.append(invalid_value(f"{field}.{name}", value, problem))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2_147_483_647:
        message = "must be between 1 and 2147483647, inclusive"
        causes.append(invalid_value(f"{field}.activeDeadlineSeconds", deadline, message))
    return causes + non_negative(
        spec.get("terminationGracePeriodSeconds"), f"{field}.terminationGracePeriodSeconds"
    )


def _validate_container(
    container: JsonObject, field: str, volumes: set[str], names: set[str]
) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    name = container.get("name", "")
    problem = label_name_problem(name)
    if not name:
        causes.append(required(f"{field}.name"))
    elif problem:
        causes.append(invalid_value(f"{field}.name", name, problem))
    elif name in names:
        causes.append(ErrorCause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{field}.name"))
    names.add(name)
    image = container.get("image", "")
    if not image:
        causes.append(required(f"{field}.image"))
    elif image != image.strip():
        causes.append(invalid_value(f"{field}.image", image, "must not have leading or trailing whitespace"))
    causes += _validate_ports(container.get("ports") or [], f"{field}.ports")
    causes += _validate_env(container.get("env") or [], f"{field}.env")
    causes += _validate_mounts(container.get("volumeMounts") or [], f"{field}.volumeMounts", volumes)
    if container["imagePullPolicy"] not in ("Always", "IfNotPresent", "Never"):
        supported = ("Always", "IfNotPresent", "Never")
        causes.append(not_supported(f"{field}.imagePullPolicy", container["imagePullPolicy"], supported))
    causes += _validate_resources(container.get("resources") or {}, f"{field}.resources")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe) is not None:
            causes += _validate_probe(container[probe], f"{field}.{probe}")
    causes += validate_security_context(container.get("securityContext"), f"{field}.securityContext")
    return causes


def _validate_init_container(container: JsonObject, field: str) -> list[ErrorCause]:
    """Checks that only sidecars among the init containers have probes and hooks."""
    policy = container.get("restartPolicy")
    if policy not in (None, "Always", "Never", "OnFailure"):
        return [not_supported(f"{field}.restartPolicy", policy, ("Always", "Never", "OnFailure"))]
    message = "may not be set for init containers without restartPolicy=Always"
    return [
        forbidden_field(f"{field}.{name}", message)
        for name in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
        if container.get(name) is not None and policy != "Always"
    ]


def _validate_ports(ports: list[JsonObject], field: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        path = f"{field}[{index}]"
        name = port.get("name")
        if name:
            if not _PORT_NAME.match(name):
                causes.append(invalid_value(f"{path}.name", name, _PORT_NAME_MESSAGE))
            elif name in names:
                causes.append(ErrorCause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
            names.add(name)
        number = port.get("containerPort")
        if not number:
            causes.append(required(f"{path}.containerPort"))
        elif not 1 <= number <= 65535:
            causes.append(invalid_value(f"{path}.containerPort", number, PORT_RANGE))
        host_port = port.get("hostPort")
        if host_port is not None and not 1 <= host_port <= 65535:
            causes.append(invalid_value(f"{path}.hostPort", host_port, PORT_RANGE))
        if port["protocol"] not in ("TCP", "UDP", "SCTP"):
            causes.append(not_supported(f"{path}.protocol", port["protocol"], ("SCTP", "TCP", "UDP")))
    return causes


def _validate_env(entries: list[JsonObject], field: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    for index, entry in enumerate(entries):
        path = f"{field}[{index}]"
        name = entry.get("name", "")
        if not name:
            causes.append(required(f"{path}.name"))
        elif "=" in name or not all(" " <= letter <= "~" for letter in name):
            message = (
                "a valid environment variable name must consist only of printable ASCII characters other "
                "than '='"
            )
            causes.append(invalid_value(f"{path}.name", name, message))
        if entry.get("valueFrom") and entry.get("value"):
            message = "may not be specified when `value` is not empty"
            causes.append(invalid_value(f"{path}.valueFrom", "", message))
    return causes


def _validate_mounts(mounts: list[JsonObject], field: str, volumes: set[str]) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    paths: set[str] = set()
    for index, mount in enumerate(mounts):
        name, path = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            causes.append(required(f"{field}[{index}].name"))
        elif name not in volumes:
            causes.append(ErrorCause("FieldValueNotFound", f'Not found: "{name}"', f"{field}[{index}].name"))
        if not path:
            causes.append(required(f"{field}[{index}].mountPath"))
        elif path in paths:
            causes.append(invalid_value(f"{field}[{index}].mountPath", path, "must be unique"))
        paths.add(path)
    return causes


def _validate_resources(resources: JsonObject, field: str) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if parse_quantity(amount) < 0:
                message = "must be greater than or equal to 0"
                causes.append(invalid_value(f"{field}.{kind}[{name}]", amount, message))
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is not None and parse_quantity(amount) > parse_quantity(limit):
            message = f"must be less than or equal to {name} limit of {limit}"
            causes.append(invalid_value(f"{field}.requests", amount, message))
    return causes


def _validate_probe(probe: JsonObject, field: str) -> list[ErrorCause]:
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if probe.get(name) is not None]
    causes: list[ErrorCause] = []
    if not handlers:
        causes.append(required(field, "must specify a handler type"))
    causes += [
        forbidden_field(f"{field}.{name}", "may not specify more than 1 handler type")
        for name in handlers[1:]
    ]
    if probe.get("exec") is not None and not probe["exec"].get("command"):
        causes.append(required(f"{field}.exec.command"))
    if probe.get("httpGet") is not None:
        port = probe["httpGet"].get("port", 0)
        if isinstance(port, int) and not 1 <= port <= 65535:
            causes.append(invalid_value(f"{field}.httpGet.port", port, PORT_RANGE))
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "failureThreshold"):
        causes += non_negative(probe.get(name), f"{field}.{name}")
    return causes


def validate_pod_update(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update of a pod's spec changes only images, the deadline, and adds tolerations."""
    new_spec, old_spec = copy_json(obj["spec"]), copy_json(old["spec"])
    causes: list[ErrorCause] = []
    for kind in ("containers", "initContainers"):
        old_containers, new_containers = old_spec.get(kind) or [], new_spec.get(kind) or []
        if len(old_containers) != len(new_containers):
            causes.append(forbidden_field(f"spec.{kind}", "pod updates may not add or remove containers"))
            continue
        for old_container, new_container in zip(old_containers, new_containers, strict=True):
            new_container["image"] = old_container.get("image")
    if causes:
        return causes
    old_tolerations = old_spec.get("tolerations") or []
    if all(entry in (new_spec.get("tolerations") or []) for entry in old_tolerations):
        new_spec["tolerations"] = old_spec.get("tolerations")
    for spec in (old_spec, new_spec):
        spec.pop("activeDeadlineSeconds", None)
        if spec.get("tolerations") is None:
            spec.pop("tolerations", None)
    return [] if new_spec == old_spec else [forbidden_field("spec", _IMMUTABLE_MESSAGE)]
