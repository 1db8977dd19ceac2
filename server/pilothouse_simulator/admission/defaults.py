"""Defaults of the kinds, and admission's additions to a pod.

The real server fills these when it decodes an object; a stored object always has them. `apply_defaults` is idempotent.
`admit_pod` runs once, at creation.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from pilothouse_simulator.admission import claims, cron_jobs, defaults_workloads, jobs, networking, policies
from pilothouse_simulator.admission.custom_resources import default_definition
from pilothouse_simulator.admission.defaults_pods import (
    default_pod_spec,
    drop_empty,
    drop_empty_metadata,
    limits_as_requests,
)
from pilothouse_simulator.admission.limit_ranges import fill_defaults
from pilothouse_simulator.values.quantities import parse_quantity
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    CRON_JOBS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INGRESSES,
    JOBS,
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    ResourceType,
)

JsonObject = dict[str, Any]

_VOLUME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_TOKEN_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def apply_defaults(resource: ResourceType, obj: JsonObject) -> None:
    """Fills the defaults of one object in place."""
    drop_empty_metadata(obj.get("metadata", {}))
    if (fill := _DEFAULTS.get(resource)) is not None:
        fill(obj)


def _default_pod(obj: JsonObject) -> None:
    default_pod_spec(obj.setdefault("spec", {}))
    limits_as_requests(obj["spec"])
    obj["spec"].setdefault("enableServiceLinks", True)


def _default_namespace(obj: JsonObject) -> None:
    obj.setdefault("spec", {})
    obj.setdefault("status", {}).setdefault("phase", "Active")


def _default_endpoint_slice(obj: JsonObject) -> None:
    for port in obj.setdefault("ports", []) or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("name", "")


def _default_event(obj: JsonObject) -> None:
    for field in ("firstTimestamp", "lastTimestamp", "eventTime"):
        obj.setdefault(field, None)
    obj.setdefault("source", {})
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")


def _default_config_map(obj: JsonObject) -> None:
    drop_empty(obj, ("data", "binaryData"))


def _default_secret(obj: JsonObject) -> None:
    if not obj.get("type"):
        obj["type"] = "Opaque"
    drop_empty(obj, ("data",))


def _default_quota(obj: JsonObject) -> None:
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


def _default_autoscaler(obj: JsonObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    obj.setdefault("status", {"desiredReplicas": 0, "currentMetrics": None})


def _default_service(obj: JsonObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("port", 0)
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port["port"]
    if not spec.get("ports"):
        spec.pop("ports", None)
    if not spec.get("selector"):
        spec.pop("selector", None)
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def admit_pod(obj: JsonObject, account: JsonObject | None = None) -> None:
    """Adds the defaults of admission to a new pod: service account, its token volume, tolerations.

    The pod's `automountServiceAccountToken` decides whether it gets a token; if it is absent, that of its `account`
    does.
    """
    spec = obj["spec"]
    spec["serviceAccountName"] = spec["serviceAccount"] = account_of(spec)
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = (account or {}).get("automountServiceAccountToken")
    if wanted is not False:
        _mount_token(spec)
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates(entry, key) for entry in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )


def account_of(spec: JsonObject) -> str:
    """Returns the name of a pod's service account."""
    return spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"


def _tolerates(toleration: JsonObject, key: str) -> bool:
    return toleration.get("key", "") in ("", key) and toleration.get("effect", "NoExecute") == "NoExecute"


def _mount_token(spec: JsonObject) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    needing = [
        container
        for container in containers
        if all(mount.get("mountPath") != _TOKEN_MOUNT_PATH for mount in container.get("volumeMounts") or [])
    ]
    if not needing:
        return
    suffix = "".join(random.choices(_VOLUME_LETTERS, k=5))
    name = f"kube-api-access-{suffix}"
    spec.setdefault("volumes", []).append(
        {
            "name": name,
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {
                        "configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }
                    },
                    {
                        "downwardAPI": {
                            "items": [
                                {
                                    "path": "namespace",
                                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                }
                            ]
                        }
                    },
                ],
                "defaultMode": 420,
            },
        }
    )
    for container in needing:
        container.setdefault("volumeMounts", []).append(
            {"name": name, "readOnly": True, "mountPath": _TOKEN_MOUNT_PATH}
        )


def quality_of_service(spec: JsonObject) -> str:
    """Returns `Guaranteed`, `Burstable` or `BestEffort`, by the cpu and memory of the pod itself or, without those, of
    all its containers.
    """
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    if any((spec.get("resources") or {}).get(kind) for kind in ("requests", "limits")):
        containers = [spec]
    any_amount, guaranteed = False, True
    for container in containers:
        requests = container.get("resources", {}).get("requests") or {}
        limits = container.get("resources", {}).get("limits") or {}
        for name in ("cpu", "memory"):
            any_amount = any_amount or name in requests or name in limits
            same = (
                name in limits
                and name in requests
                and parse_quantity(limits[name]) == parse_quantity(requests[name])
            )
            guaranteed = guaranteed and same
    if not any_amount:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


_DEFAULTS: dict[ResourceType, Callable[[JsonObject], None]] = {
    CONFIG_MAPS: _default_config_map,
    CRON_JOBS: cron_jobs.default_cron_job,
    CUSTOM_RESOURCE_DEFINITIONS: default_definition,
    DAEMON_SETS: defaults_workloads.default_daemon_set,
    DEPLOYMENTS: defaults_workloads.default_deployment,
    ENDPOINT_SLICES: _default_endpoint_slice,
    EVENTS: _default_event,
    HORIZONTAL_POD_AUTOSCALERS: _default_autoscaler,
    INGRESSES: networking.default_ingress,
    JOBS: jobs.default_job,
    LIMIT_RANGES: fill_defaults,
    NAMESPACES: _default_namespace,
    NETWORK_POLICIES: networking.default_network_policy,
    PERSISTENT_VOLUMES: partial(claims.apply_defaults, PERSISTENT_VOLUMES),
    PERSISTENT_VOLUME_CLAIMS: partial(claims.apply_defaults, PERSISTENT_VOLUME_CLAIMS),
    PODS: _default_pod,
    POD_DISRUPTION_BUDGETS: policies.default_budget,
    REPLICA_SETS: defaults_workloads.default_replica_set,
    RESOURCE_QUOTAS: _default_quota,
    ROLE_BINDINGS: policies.default_role_binding,
    SECRETS: _default_secret,
    SERVICES: _default_service,
    STATEFUL_SETS: defaults_workloads.default_stateful_set,
    STORAGE_CLASSES: partial(claims.apply_defaults, STORAGE_CLASSES),
}
