"""Defaults of the kinds, and admission's additions to a pod.

The real server fills these when it decodes an object; a stored object always carries them. `apply_defaults` may
run any number of times. `admit_pod` runs once, at creation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pilothouse_simulator.admission import claims
from pilothouse_simulator.admission.limit_ranges import fill_defaults
from pilothouse_simulator.values.quantities import parse_quantity
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    LIMIT_RANGES,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
    STORAGE_CLASSES,
    ResourceType,
)

JsonObject = dict[str, Any]

_VOLUME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_TOKEN_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def apply_defaults(resource: ResourceType, obj: JsonObject) -> None:
    """Fills the defaults of one object in place."""
    drop_empty_metadata(obj.get("metadata", {}))
    if (fill := _DEFAULTS.get(resource)) is not None:
        fill(obj)


def drop_empty_metadata(metadata: JsonObject) -> None:
    """Empty labels, annotations, finalizers and owner references are not stored."""
    _drop_empty(metadata, ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"))


def _drop_empty(holder: JsonObject, fields: Iterable[str]) -> None:
    for field in fields:
        if field in holder and not holder[field]:
            holder.pop(field)


def _default_pod(obj: JsonObject) -> None:
    default_pod_spec(obj.setdefault("spec", {}))
    _limits_as_requests(obj["spec"])
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
    _drop_empty(obj, ("data", "binaryData"))


def _default_secret(obj: JsonObject) -> None:
    if not obj.get("type"):
        obj["type"] = "Opaque"
    _drop_empty(obj, ("data",))


def _default_quota(obj: JsonObject) -> None:
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


def _default_autoscaler(obj: JsonObject) -> None:
    obj.setdefault("spec", {}).setdefault("minReplicas", 1)
    obj.setdefault("status", {"desiredReplicas": 0, "currentMetrics": None})


def _default_deployment(obj: JsonObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _default_template(spec)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    for field in ("minReadySeconds", "paused"):
        if not spec.get(field):
            spec.pop(field, None)
    status = obj.setdefault("status", {})
    for condition in status.get("conditions") or []:
        condition.setdefault("lastUpdateTime", None)
        condition.setdefault("lastTransitionTime", None)


def _default_replica_set(obj: JsonObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _default_template(spec)
    if not spec.get("minReadySeconds"):
        spec.pop("minReadySeconds", None)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def _default_template(spec: JsonObject) -> None:
    template = spec.setdefault("template", {})
    drop_empty_metadata(template.setdefault("metadata", {}))
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: JsonObject) -> None:
    """Defaults of a pod spec, in a pod or in a template."""
    spec.setdefault("containers", None)
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or []:
            _default_container(container)
    spec.setdefault("restartPolicy", "Always")
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for volume in spec.get("volumes") or []:
        _default_volume(volume)


def _default_container(container: JsonObject) -> None:
    _drop_empty(container.setdefault("resources", {}), ("requests", "limits", "claims"))
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = _pull_policy(str(container.get("image") or ""))
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if not port.get("hostPort"):
            port.pop("hostPort", None)
    for entry in container.get("env") or []:
        entry.setdefault("name", "")
        _default_references(entry.get("valueFrom") or {})
    _drop_empty(container, ("env", "ports", "volumeMounts", "command", "args", "envFrom", "volumeDevices"))
    for probe_name in _PROBES:
        if container.get(probe_name):
            _default_probe(container[probe_name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _default_request(hook)


def _pull_policy(image: str) -> str:
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    latest = "@" not in image and tag in ("", "latest")
    return "Always" if latest else "IfNotPresent"


def _default_references(source: JsonObject) -> None:
    """Fills the defaults of references to the pod itself."""
    if source.get("fieldRef") is not None:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if source.get("resourceFieldRef") is not None:
        source["resourceFieldRef"].setdefault("divisor", "0")


def _default_probe(probe: JsonObject) -> None:
    for field, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(field):
            probe[field] = value
    if not probe.get("initialDelaySeconds"):
        probe.pop("initialDelaySeconds", None)
    _default_request(probe)
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")


def _default_request(handler: JsonObject) -> None:
    http = handler.get("httpGet")
    if http is not None:
        http.setdefault("path", "/")
        http.setdefault("scheme", "HTTP")


def _default_volume(volume: JsonObject) -> None:
    for source in ("configMap", "secret", "projected", "downwardAPI"):
        if volume.get(source) is not None:
            volume[source].setdefault("defaultMode", 420)
    for item in (volume.get("downwardAPI") or {}).get("items") or []:
        _default_references(item)
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")


def _limits_as_requests(spec: JsonObject) -> None:
    """A container of a pod that limits an amount without requesting it requests the limit."""
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or []:
            limits = container["resources"].get("limits") or {}
            for name, amount in limits.items():
                container["resources"].setdefault("requests", {}).setdefault(name, amount)


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
    """Makes admission's additions to a new pod: service account, its token volume, tolerations.

    The pod decides whether it gets a token; one that says nothing leaves it to its `account`.
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
    """The name of a pod's service account."""
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
    """`Guaranteed`, `Burstable` or `BestEffort`, by the cpu and memory of all containers."""
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
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
    DEPLOYMENTS: _default_deployment,
    ENDPOINT_SLICES: _default_endpoint_slice,
    EVENTS: _default_event,
    HORIZONTAL_POD_AUTOSCALERS: _default_autoscaler,
    LIMIT_RANGES: fill_defaults,
    NAMESPACES: _default_namespace,
    PERSISTENT_VOLUMES: partial(claims.apply_defaults, PERSISTENT_VOLUMES),
    PERSISTENT_VOLUME_CLAIMS: partial(claims.apply_defaults, PERSISTENT_VOLUME_CLAIMS),
    PODS: _default_pod,
    REPLICA_SETS: _default_replica_set,
    RESOURCE_QUOTAS: _default_quota,
    SECRETS: _default_secret,
    SERVICES: _default_service,
    STORAGE_CLASSES: partial(claims.apply_defaults, STORAGE_CLASSES),
}
