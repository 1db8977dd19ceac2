"""Kinds of objects that the platform carries without a model of its own, and kinds that it never takes, with reasons.

The server's guard and `pilothouse apply` read the same table. A kind is identified by its group, so that no other
version of it escapes the table. Cluster-scoped kinds that are not listed here are found by the cluster's discovery.
"""

from __future__ import annotations

from typing import Final

RBAC: Final = "rbac.authorization.k8s.io"
GATEWAY: Final = "gateway.networking.k8s.io"

# Kinds that need no setting of the cluster, with their API versions.
CARRIED: Final[frozenset[tuple[str, str]]] = frozenset({
    ("v1", "ServiceAccount"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("autoscaling/v1", "HorizontalPodAutoscaler"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    (f"{GATEWAY}/v1", "Gateway"),
    (f"{GATEWAY}/v1beta1", "Gateway"),
    (f"{GATEWAY}/v1", "HTTPRoute"),
    (f"{GATEWAY}/v1beta1", "HTTPRoute"),
    (f"{RBAC}/v1", "Role"),
    (f"{RBAC}/v1", "RoleBinding"),
})  # fmt: skip
_CARRIED_KINDS: Final = frozenset((version.rpartition("/")[0], kind) for version, kind in CARRIED)

_DEPLOYMENT = "write a Deployment"
_NOUN = "it has its own calls; use the calls of"
_CLUSTER = "it belongs to the cluster and not to a namespace"
_MADE = "Kubernetes makes it"
_REASONS: Final[dict[tuple[str, str], str]] = {
    ("", "Pod"): _DEPLOYMENT,
    ("", "ReplicationController"): _DEPLOYMENT,
    ("apps", "ReplicaSet"): _DEPLOYMENT,
    ("", "PodTemplate"): _DEPLOYMENT,
    **dict.fromkeys(
        (
            *(("apps", kind) for kind in ("Deployment", "StatefulSet", "DaemonSet")),
            *(("batch", kind) for kind in ("Job", "CronJob")),
        ),
        f"{_NOUN} containers",
    ),
    ("", "Secret"): f"{_NOUN} secrets",
    ("", "ConfigMap"): f"{_NOUN} config maps",
    ("", "PersistentVolumeClaim"): f"{_NOUN} volumes",
    ("", "Service"): f"{_NOUN} services",
    ("", "Endpoints"): "a Service with a selector gets its endpoints from its pods",
    ("discovery.k8s.io", "EndpointSlice"): "a Service with a selector gets its endpoints from its pods",
    (
        GATEWAY,
        "ReferenceGrant",
    ): "it opens a namespace to others; name shared gateways in the cluster's shared_gateways",
    ("", "ResourceQuota"): "set resource_quota of the namespace",
    ("", "LimitRange"): "it changes the pods of the whole namespace; ask the administrator of the cluster",
    ("", "Event"): _MADE,
    ("events.k8s.io", "Event"): _MADE,
    ("coordination.k8s.io", "Lease"): "programs make it at run time; give their Role the resource leases",
    ("apps", "ControllerRevision"): _MADE,
    ("", "Binding"): _MADE,
    **dict.fromkeys(
        (
            *(("", kind) for kind in ("Namespace", "Node", "PersistentVolume", "ComponentStatus")),
            *((RBAC, kind) for kind in ("ClusterRole", "ClusterRoleBinding")),
            ("storage.k8s.io", "StorageClass"),
            ("storage.k8s.io", "VolumeAttachment"),
            ("storage.k8s.io", "CSIDriver"),
            ("storage.k8s.io", "CSINode"),
            ("scheduling.k8s.io", "PriorityClass"),
            ("node.k8s.io", "RuntimeClass"),
            ("networking.k8s.io", "IngressClass"),
            (GATEWAY, "GatewayClass"),
            ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
            ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
        ),
        _CLUSTER,
    ),
}
_GROUPS: Final[dict[str, str]] = {
    "apiregistration.k8s.io": "it changes the API of the whole cluster",
    "admissionregistration.k8s.io": "it changes what the whole cluster admits",
    "apiextensions.k8s.io": "it changes the API of the whole cluster",
    "certificates.k8s.io": "it makes identities for the whole cluster",
    "authentication.k8s.io": "it is a request to the API server, not an object",
    "authorization.k8s.io": "it is a request to the API server, not an object",
}
_FORMER_GROUPS: Final = frozenset({"extensions"})


def group_of(api_version: str) -> str:
    """Returns the group of `networking.k8s.io/v1`; empty for `v1`."""
    return api_version.rpartition("/")[0]


def never_taken(api_version: str, kind: str) -> str | None:
    """Returns why no object of a kind is carried, on any cluster.

    None if objects of the kind may be."""
    group = group_of(api_version)
    if reason := _GROUPS.get(group):
        return reason
    if kind.endswith("Review") and (group == "" or group.endswith(".k8s.io")):
        return _GROUPS["authorization.k8s.io"]
    if group in _FORMER_GROUPS:
        return "its version is not served any more; write the present one"
    return _REASONS.get((group, kind))


def is_built_in(api_version: str, kind: str) -> bool:
    """Returns whether a kind, in any version, is open by default, so that a cluster's settings do not open it."""
    return (group_of(api_version), kind) in _CARRIED_KINDS
