"""Defaults of pod specs, in pods and in the templates of workloads, and of the metadata of every kind.

Applying them again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

JsonObject = dict[str, Any]

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def drop_empty_metadata(metadata: JsonObject) -> None:
    """Removes empty labels, annotations, finalizers and owner references, which are not stored."""
    drop_empty(metadata, ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"))


def drop_empty(holder: JsonObject, fields: Iterable[str]) -> None:
    """Removes fields that are empty, which the real server does not store."""
    for field in fields:
        if field in holder and not holder[field]:
            holder.pop(field)


def default_template(spec: JsonObject) -> None:
    """Fills the defaults of the pod template of a workload's spec in place."""
    template = spec.setdefault("template", {})
    drop_empty_metadata(template.setdefault("metadata", {}))
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: JsonObject) -> None:
    """Fills the defaults of a pod spec in place, in a pod or in a template."""
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
    drop_empty(container.setdefault("resources", {}), ("requests", "limits", "claims"))
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
    drop_empty(container, ("env", "ports", "volumeMounts", "command", "args", "envFrom", "volumeDevices"))
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
    projected = (volume.get("projected") or {}).get("sources") or []
    for source_of in (volume, *projected):
        for item in (source_of.get("downwardAPI") or {}).get("items") or []:
            _default_references(item)
        if source_of.get("serviceAccountToken") is not None:
            source_of["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")


def limits_as_requests(spec: JsonObject) -> None:
    """Sets the request of each amount that a container limits but does not request: the limit."""
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or []:
            limits = container["resources"].get("limits") or {}
            for name, amount in limits.items():
                container["resources"].setdefault("requests", {}).setdefault(name, amount)
