"""From a namespace to the Kubernetes namespace and its ResourceQuota: the fields of our own and no others."""

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


# Those of its answers: of a Deployment it warns, where it would refuse the pods.
# The ResourceQuota, and how many pods it leaves room for in addition to those that are asked for.
QUOTA_NAME = "pilothouse"
SPARE_PODS = 20
_COUNTED = ("deployments.apps", "statefulsets.apps", "daemonsets.apps", "cronjobs.batch")
_WARN = "pod-security.kubernetes.io/warn"
_VERSION = "-version"


def asked_level(value: Namespace) -> str:
    """The Pod Security level that its Kubernetes namespace is given: the caller's goes before; '' for none."""
    return value.labels.get(POD_SECURITY, value.default_pod_security)


def namespace_manifest(value: Namespace) -> Manifest:
    """The Kubernetes namespace of a namespace, with the caller's labels and ours."""
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
    """Returns the manifest that makes the Kubernetes namespace with this uid ours, and changes nothing else,
    so that it can be emptied.
    """
    labels = {NAMESPACE: label_value(value.name), NAMESPACE_UID: value.uid}
    metadata = {"name": value.kubernetes_name, "uid": uid, "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def released_namespace_manifest(value: Namespace) -> Manifest:
    """Returns the manifest that gives an adopted namespace back: an apply that leaves our fields out and the
    fields of others unchanged.
    """
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": value.kubernetes_name}}


def quota_manifest(value: Namespace, demand: PodDemand) -> Manifest:
    """The ResourceQuota of a namespace with a quota.

    It must not refuse containers that the database admits, so its numbers have room. Each kind of workload may have as
    many objects as the quota allows containers. Pods may be twice as many as the containers ask for, which covers
    rollouts, at least `SPARE_PODS` more, and one for each container that the quota allows. With `enforce_on_cluster`
    cpu and memory have the room of the largest container again, for one rollout.
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
