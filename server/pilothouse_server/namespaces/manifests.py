"""From a namespace to the Kubernetes namespace: the fields of our own and no others."""

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
from pilothouse_server.namespaces.model import Namespace

# The label by which a Kubernetes namespace declares the pods that it accepts.
POD_SECURITY = "pod-security.kubernetes.io/enforce"


# Those of its answers: of a Deployment it warns, where it would refuse the pods.
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
