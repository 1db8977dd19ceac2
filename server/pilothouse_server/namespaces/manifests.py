"""Builds the Kubernetes namespace and the ResourceQuota of a namespace, with only the platform's own fields."""

from __future__ import annotations

from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.kubernetes.ownership import (
    MANAGED_BY,
    MANAGER,
    NAMESPACE,
    NAMESPACE_UID,
    label_value,
    without_empty,
)
from pilothouse_server.namespaces.model import Namespace, PodDemand
from pilothouse_server.values.quantity import Quantity

# The label by which a Kubernetes namespace declares the pods that it accepts.
POD_SECURITY = "pod-security.kubernetes.io/enforce"


# The name of the ResourceQuota, and the minimum number of pods that it allows beyond the requested ones.
QUOTA_NAME = "pilothouse"
SPARE_PODS = 20
_COUNTED = ("deployments.apps", "statefulsets.apps", "daemonsets.apps", "cronjobs.batch")
# With this label the API server warns about a Deployment whose pods it would refuse.
_WARN = "pod-security.kubernetes.io/warn"
_VERSION = "-version"


def asked_level(value: Namespace) -> str:
    """Returns the Pod Security level for the Kubernetes namespace: the caller's, else the default; '' for none."""
    return value.labels.get(POD_SECURITY, value.default_pod_security)


def namespace_manifest(value: Namespace) -> Manifest:
    """Returns the Kubernetes namespace of a namespace, with the caller's labels and the platform's."""
    level = asked_level(value)
    security = {POD_SECURITY: level} if level else {}
    if level and not value.adopted:
        version = value.labels.get(POD_SECURITY + _VERSION)
        security |= {_WARN: level, **({_WARN + _VERSION: version} if version else {})}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": without_empty(
            {
                "name": value.kubernetes_name,
                "labels": {
                    **security,
                    **value.labels,
                    MANAGED_BY: MANAGER,
                    NAMESPACE: label_value(value.name),
                    NAMESPACE_UID: value.uid,
                },
                "annotations": dict(value.annotations),
            }
        ),
    }


def reclaimed_namespace_manifest(value: Namespace, uid: str) -> Manifest:
    """Returns the manifest that labels the Kubernetes namespace with this uid as the platform's, and no more.

    The platform can then delete its contents.
    """
    labels = {NAMESPACE: label_value(value.name), NAMESPACE_UID: value.uid}
    metadata = {"name": value.kubernetes_name, "uid": uid, "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def released_namespace_manifest(value: Namespace) -> Manifest:
    """Returns the manifest that releases an adopted namespace.

    The apply leaves out the platform's fields, and does not change the fields of others.
    """
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": value.kubernetes_name}}


def quota_manifest(value: Namespace, demand: PodDemand) -> Manifest:
    """Returns the ResourceQuota of a namespace with a quota.

    The ResourceQuota must not refuse containers that the database admits, so its numbers leave room. Each workload kind
    may have as many objects as the quota allows containers. The limit for pods is twice the pods that the containers
    request, which covers rollouts, at least `SPARE_PODS` more than requested, and at least the quota's number of
    containers. With `enforce_on_cluster`, cpu and memory have additional room for the largest container, for one
    rollout.
    """
    quota = value.quota
    hard = {"pods": str(max(demand.pods + max(demand.pods, SPARE_PODS), quota.containers))}
    if quota.containers:
        hard |= {f"count/{kind}": str(quota.containers) for kind in _COUNTED}
    if quota.services:
        hard["count/services"] = str(quota.services)
    if value.enforce_on_cluster and quota.cpu:
        cpu = Quantity.parse(quota.cpu) + Quantity.from_millicores(demand.largest_cpu_millicores)
        hard |= dict.fromkeys(("requests.cpu", "limits.cpu"), cpu.text)
    if value.enforce_on_cluster and quota.memory:
        memory = Quantity.parse(quota.memory) + Quantity.from_bytes(demand.largest_memory_bytes)
        hard |= dict.fromkeys(("requests.memory", "limits.memory"), memory.text)
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {
            "name": QUOTA_NAME,
            "namespace": value.kubernetes_name,
            "labels": {
                MANAGED_BY: MANAGER,
                NAMESPACE: label_value(value.name),
                NAMESPACE_UID: value.uid,
            },
        },
        "spec": {"hard": hard},
    }
