"""Validation of objects on create and update: the causes of a 422, per kind.

A new kind adds one function to `_CREATE` (and one to `_UPDATE` for its immutable fields).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

from pilothouse_simulator.admission.claims import (
    claim_unchanged,
    class_unchanged,
    validate_claim,
    validate_class,
    validate_volume,
)
from pilothouse_simulator.admission.cron_jobs import validate_cron_job
from pilothouse_simulator.admission.custom_resources import validate_custom, validate_definition
from pilothouse_simulator.admission.jobs import job_unchanged, validate_job
from pilothouse_simulator.admission.networking import (
    ingress_class_unchanged,
    validate_ingress,
    validate_ingress_class,
    validate_network_policy,
)
from pilothouse_simulator.admission.policies import (
    role_unchanged,
    validate_budget,
    validate_role,
    validate_role_binding,
)
from pilothouse_simulator.admission.validation_config import (
    config_map_unchanged,
    secret_unchanged,
    validate_config_map,
    validate_secret,
)
from pilothouse_simulator.admission.validation_limits import (
    validate_autoscaler,
    validate_lease,
    validate_limit_range,
    validate_resource_quota,
)
from pilothouse_simulator.admission.validation_metadata import (
    invalid_value,
    label_name_problem,
    not_supported,
    required,
    validate_metadata,
)
from pilothouse_simulator.admission.validation_pods import (
    PORT_RANGE,
    validate_new_pod,
    validate_pod_spec,
    validate_pod_update,
)
from pilothouse_simulator.admission.validation_workloads import (
    selector_unchanged,
    stateful_set_unchanged,
    validate_daemon_set,
    validate_deployment,
    validate_replica_set,
    validate_stateful_set,
)
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    CRON_JOBS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INGRESS_CLASSES,
    INGRESSES,
    JOBS,
    LEASES,
    LIMIT_RANGES,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    ResourceType,
)

JsonObject = dict[str, Any]

STORAGE_LIMIT_BYTES = 1536 * 1024
SENT_LIMIT_BYTES = 2 * 1024 * 1024
_IMMUTABLE = "field is immutable"


def validate_create(resource: ResourceType, obj: JsonObject) -> None:
    """Raises 422 for an invalid new object, and 500 for one that is too large for the storage."""
    causes = validate_metadata(resource, obj["metadata"])
    causes += _CREATE.get(resource, _no_causes)(obj)
    if resource is PODS:
        causes += validate_new_pod(obj["spec"])
    causes += validate_custom(resource, obj)
    _refuse(resource, obj, causes)
    check_size(obj)


def validate_status(resource: ResourceType, obj: JsonObject) -> None:
    """Raises 422 for a status of a custom resource that its schema does not allow.

    Statuses of other kinds are not checked.
    """
    _refuse(resource, obj, validate_custom(resource, obj))


def validate_update(resource: ResourceType, obj: JsonObject, old: JsonObject) -> None:
    """Raises 422 for an invalid update, and 500 for an object that is too large for the storage."""
    causes = validate_metadata(resource, obj["metadata"])
    update = _UPDATE.get(resource)
    changed = any(
        obj.get(name) != old.get(name) for name in {*obj, *old} if name not in ("metadata", "status")
    )
    if changed:
        causes += _CREATE.get(resource, _no_causes)(obj)
        causes += update(obj, old) if update is not None else []
        causes += validate_custom(resource, obj, old)
    _refuse(resource, obj, causes)
    check_size(obj)


def check_size(obj: JsonObject) -> None:
    """Raises 500 above 1.5 MiB, the limit of the storage. Above 2 MiB the API server does not even send the object.

    Unlike the real server, the simulator also checks the size in a dry run, where users expect the check.
    """
    size = len(orjson.dumps(obj))
    if size > SENT_LIMIT_BYTES:
        raise api_errors.internal_error(
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max "
            f"({size} vs. {SENT_LIMIT_BYTES})"
        )
    if size > STORAGE_LIMIT_BYTES:
        raise api_errors.internal_error("etcdserver: request is too large")


def immutable_uid(resource: ResourceType, name: str, uid: str) -> api_errors.ApiError:
    """Returns 422 for a patch with the uid of another object; the real server names the field twice."""
    cause = invalid_value("metadata.uid", uid, _IMMUTABLE)
    error = api_errors.invalid(resource, name, [cause, cause])
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    error.status["message"] = f'{kind} "{name}" is invalid: metadata.uid: {cause.message}'
    return error


def _refuse(resource: ResourceType, obj: JsonObject, causes: list[ErrorCause]) -> None:
    if causes:
        raise api_errors.invalid(resource, str(obj["metadata"].get("name", "")), causes)


def _no_causes(_: JsonObject) -> list[ErrorCause]:
    return []


def _validate_pod(obj: JsonObject) -> list[ErrorCause]:
    return validate_pod_spec(obj["spec"], "spec")


def _validate_service(obj: JsonObject) -> list[ErrorCause]:
    spec = obj["spec"]
    causes: list[ErrorCause] = []
    kind = spec["type"]
    if kind not in ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"):
        supported = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
        causes.append(not_supported("spec.type", kind, supported))
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and kind != "ExternalName":
        causes.append(required("spec.ports"))
    if kind == "ExternalName" and not spec.get("externalName"):
        causes.append(required("spec.externalName"))
    names: set[str] = set()
    for index, port in enumerate(ports):
        causes += _validate_service_port(port, f"spec.ports[{index}]", names, named=len(ports) > 1)
    seen: set[tuple[int, str]] = set()
    for index, port in enumerate(ports):
        key = (port["port"], port["protocol"])
        if key in seen:
            shown = {"Name": "", "Protocol": key[1], "AppProtocol": None, "Port": key[0], "TargetPort": 0,
                     "NodePort": 0}  # fmt: skip
            message = f"Duplicate value: {json.dumps(shown, separators=(',', ':'))}"
            causes.append(ErrorCause("FieldValueDuplicate", message, f"spec.ports[{index}]"))
        seen.add(key)
    return causes


def _validate_service_port(port: JsonObject, field: str, names: set[str], *, named: bool) -> list[ErrorCause]:
    causes: list[ErrorCause] = []
    name = port.get("name", "")
    if not name:
        if named:
            causes.append(required(f"{field}.name"))
    elif problem := label_name_problem(name):
        causes.append(invalid_value(f"{field}.name", name, problem))
    elif name in names:
        causes.append(ErrorCause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{field}.name"))
    names.add(name)
    if not 1 <= port["port"] <= 65535:
        causes.append(invalid_value(f"{field}.port", port["port"], PORT_RANGE))
    if port["protocol"] not in ("TCP", "UDP", "SCTP"):
        causes.append(not_supported(f"{field}.protocol", port["protocol"], ("SCTP", "TCP", "UDP")))
    target = port["targetPort"]
    if isinstance(target, int) and not 1 <= target <= 65535:
        causes.append(invalid_value(f"{field}.targetPort", target, PORT_RANGE))
    return causes


def _service_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update does not change the first cluster address of a Service."""
    new_spec, old_spec = obj["spec"], old["spec"]
    if "ExternalName" in (new_spec["type"], old_spec["type"]) or not old_spec.get("clusterIP"):
        return []
    sent = new_spec.get("clusterIP") or next(iter(new_spec.get("clusterIPs") or []), "")
    if sent and sent != old_spec["clusterIP"]:
        return [invalid_value("spec.clusterIPs[0]", [sent], "may not change once set")]
    return []


_CREATE: dict[ResourceType, Callable[[JsonObject], list[ErrorCause]]] = {
    DEPLOYMENTS: validate_deployment,
    REPLICA_SETS: validate_replica_set,
    STATEFUL_SETS: validate_stateful_set,
    DAEMON_SETS: validate_daemon_set,
    JOBS: validate_job,
    CRON_JOBS: validate_cron_job,
    PODS: _validate_pod,
    SERVICES: _validate_service,
    CONFIG_MAPS: validate_config_map,
    SECRETS: validate_secret,
    PERSISTENT_VOLUME_CLAIMS: validate_claim,
    PERSISTENT_VOLUMES: validate_volume,
    STORAGE_CLASSES: validate_class,
    RESOURCE_QUOTAS: validate_resource_quota,
    LIMIT_RANGES: validate_limit_range,
    LEASES: validate_lease,
    HORIZONTAL_POD_AUTOSCALERS: validate_autoscaler,
    CUSTOM_RESOURCE_DEFINITIONS: validate_definition,
    INGRESSES: validate_ingress,
    INGRESS_CLASSES: validate_ingress_class,
    NETWORK_POLICIES: validate_network_policy,
    POD_DISRUPTION_BUDGETS: validate_budget,
    ROLES: validate_role,
    ROLE_BINDINGS: validate_role_binding,
}
_UPDATE: dict[ResourceType, Callable[[JsonObject, JsonObject], list[ErrorCause]]] = {
    DEPLOYMENTS: selector_unchanged,
    REPLICA_SETS: selector_unchanged,
    STATEFUL_SETS: stateful_set_unchanged,
    DAEMON_SETS: selector_unchanged,
    JOBS: job_unchanged,
    PODS: validate_pod_update,
    PERSISTENT_VOLUME_CLAIMS: claim_unchanged,
    STORAGE_CLASSES: class_unchanged,
    SERVICES: _service_unchanged,
    CONFIG_MAPS: config_map_unchanged,
    SECRETS: secret_unchanged,
    INGRESS_CLASSES: ingress_class_unchanged,
    ROLE_BINDINGS: role_unchanged,
}

__all__ = ["check_size", "immutable_uid", "validate_create", "validate_update"]
