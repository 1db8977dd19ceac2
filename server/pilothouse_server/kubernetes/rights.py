"""The rights that the platform needs on a cluster.

One table gives both the ClusterRole to grant and the access reviews of missing rights. A server-side apply that creates
an object needs `create` as well as `patch`. The platform does not need cluster-admin: there is no wildcard, and nodes
are only read. For roles it has neither `escalate` nor `bind`, so a Role gives no more than these rights. An API
server's access review concerns the credentials of the request, so the check needs no right of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError

_AT_ONCE = 8
_LIST = ("get", "list")
_READ = (*_LIST, "watch")
_KEEP = ("get", "list", "create", "patch", "delete")
_KEEP_WATCHED = (*_READ, "create", "patch", "delete")


class Right(msgspec.Struct, frozen=True, order=True):
    """One verb on one resource. `resource` may name a subresource (`pods/log`).

    `optional`: the platform works without it, except for the feature that `purpose` names.
    """

    api_group: str
    resource: str
    verb: str
    purpose: str
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' if self.api_group else ''}{self.api_group}"


class _Row(msgspec.Struct, frozen=True):
    api_group: str
    resource: str
    verbs: tuple[str, ...]
    purpose: str
    optional: bool = False


_TABLE = (
    _Row("", "namespaces", _KEEP_WATCHED, "a Kubernetes namespace for each namespace"),
    _Row("", "pods", _READ, "the states of containers"),
    _Row("", "events", _LIST, "the reasons why containers do not run"),
    _Row("", "resourcequotas", _KEEP_WATCHED, "quotas of namespaces on the cluster as well", True),
    _Row("", "services", _KEEP_WATCHED, "Services, and port mappings"),
    _Row("", "serviceaccounts", _KEEP, "the service accounts that containers name"),
    _Row("", "configmaps", _KEEP_WATCHED, "config maps"),
    _Row("", "secrets", _KEEP_WATCHED, "secrets"),
    _Row("", "persistentvolumeclaims", _KEEP_WATCHED, "volumes"),
    _Row("apps", "deployments", _KEEP_WATCHED, "containers"),
    _Row("apps", "deployments/scale", ("get", "patch"), "start, stop, pause and resume"),
    _Row("apps", "statefulsets", _KEEP_WATCHED, "containers that are StatefulSets"),
    _Row("apps", "statefulsets/scale", ("get", "patch"), "start, stop, pause and resume of StatefulSets"),
    _Row("", "pods", ("delete",), "ending a stuck rollout of a StatefulSet", True),
    _Row("apps", "daemonsets", _KEEP_WATCHED, "containers that are DaemonSets"),
    _Row("batch", "jobs", _KEEP_WATCHED, "containers that are Jobs, and runs of CronJobs"),
    _Row("batch", "cronjobs", _KEEP_WATCHED, "containers that are CronJobs"),
    _Row("apps", "replicasets", _READ, "progress of rollouts"),
    _Row("discovery.k8s.io", "endpointslices", _READ, "ready endpoints of Services", True),
    _Row(
        "autoscaling",
        "horizontalpodautoscalers",
        _KEEP_WATCHED,
        "autoscalers, and leaving replicas to them",
        True,
    ),
    _Row("", "serviceaccounts", ("watch",), "service accounts that are objects", True),
    _Row("networking.k8s.io", "ingresses", _KEEP_WATCHED, "Ingresses", True),
    _Row("networking.k8s.io", "networkpolicies", _KEEP_WATCHED, "NetworkPolicies", True),
    _Row("policy", "poddisruptionbudgets", _KEEP_WATCHED, "PodDisruptionBudgets", True),
    _Row("gateway.networking.k8s.io", "gateways", _KEEP_WATCHED, "Gateways", True),
    _Row("gateway.networking.k8s.io", "httproutes", _KEEP_WATCHED, "HTTPRoutes", True),
    _Row("rbac.authorization.k8s.io", "roles", _KEEP_WATCHED, "Roles with the platform's own rights", True),
    _Row("rbac.authorization.k8s.io", "rolebindings", _KEEP_WATCHED, "RoleBindings of such Roles", True),
    _Row("storage.k8s.io", "storageclasses", _LIST, "checks of storage classes, and expansion", True),
    _Row("", "persistentvolumes", _LIST, "the volumes that claims are bound to", True),
    _Row("", "nodes", _LIST, "usage, and the architecture of images", True),
    _Row("", "nodes/proxy", ("get",), "usage, from the kubelets", True),
    _Row("metrics.k8s.io", "pods", _LIST, "usage, where kubelets may not be read", True),
    _Row("", "pods/log", ("get",), "logs", True),
    _Row("", "pods/exec", ("get", "create"), "exec, and copies", True),
    # `get` for a websocket, and `create` as well from Kubernetes 1.35 on.
    _Row("", "pods/portforward", ("get", "create"), "port-forward", True),
)
RIGHTS: tuple[Right, ...] = tuple(
    sorted(
        Right(row.api_group, row.resource, verb, row.purpose, row.optional)
        for row in _TABLE
        for verb in row.verbs
    )
)
_WRITE = ("create", "update", "patch", "delete")
# A cluster lets the platform write a Role only of rights that the platform has itself, because it has no `escalate`.
# These rights are granted but not reviewed: if one is missing, the cluster refuses a Role that contains it.
OF_ROLES: tuple[Right, ...] = tuple(
    Right(group, resource, verb, "Roles that give it to programs", True)
    for group, resources, verbs in (
        ("", "pods/status replicationcontrollers endpoints services/status", _READ),
        ("", "persistentvolumeclaims/status resourcequotas limitranges", _READ),
        ("", "configmaps", ("update",)),
        ("", "events", ("watch", *_WRITE)),
        ("events.k8s.io", "events", (*_READ, *_WRITE)),
        ("coordination.k8s.io", "leases", (*_READ, *_WRITE)),
        ("apps", "deployments/status replicasets/status statefulsets/status daemonsets/status", _READ),
        ("apps", "deployments/scale statefulsets/scale", ("list", "watch")),
        ("batch", "jobs/status cronjobs/status", _READ),
        ("networking.k8s.io", "ingresses/status", _READ),
        ("policy", "poddisruptionbudgets/status", _READ),
        ("autoscaling", "horizontalpodautoscalers/status", _READ),
        ("gateway.networking.k8s.io", "gateways/status httproutes/status", _READ),
    )
    for resource in resources.split()
    for verb in verbs
)


async def denied(client: ClusterClient, rights: Sequence[Right] = RIGHTS) -> list[Right]:
    """Returns those of `rights` that the cluster denies to the credentials of `client`, in all namespaces.

    Raises ClusterError if a review fails.
    """
    if await client.may("*", "*", "*"):
        return []
    gate = asyncio.Semaphore(_AT_ONCE)

    async def allowed(right: Right) -> bool:
        async with gate:
            return await client.may(right.verb, right.api_group, right.resource)

    try:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(allowed(right)) for right in rights]
    except* ClusterError as failed:
        raise _first(failed) from None
    return [right for right, answer in zip(rights, answers, strict=True) if not answer.result()]


def _first(group: BaseExceptionGroup[ClusterError]) -> ClusterError:
    """Returns one failure for many, because all fail alike."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def manifest(rights: Iterable[Right] = (*RIGHTS, *OF_ROLES), *, name: str = "pilothouse") -> str:
    """Returns a ServiceAccount, a ClusterRole of exactly these rights and its binding, as YAML."""
    account = {"name": name, "namespace": name}
    documents: list[dict[str, object]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": _rules(rights),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
    ]
    import yaml

    return yaml.safe_dump_all(documents, sort_keys=False)


def _rules(rights: Iterable[Right]) -> list[dict[str, object]]:
    """Returns one rule for all resources of a group that are granted the same verbs."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        verbs.setdefault((right.api_group, right.resource), []).append(right.verb)
    resources: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), granted in verbs.items():
        resources.setdefault((group, tuple(sorted(granted))), []).append(resource)
    return [
        {"apiGroups": [group], "resources": named, "verbs": list(granted)}
        for (group, granted), named in resources.items()
    ]
