"""The kinds of carried objects: the API paths of those that are open by default, and the kinds that are closed.

`pilothouse_manifests.carried` lists the kinds that are open and those that are never carried, with reasons. A cluster's
settings may open further kinds: its custom resources. Only the cluster's discovery shows where it serves those.
"""

from __future__ import annotations

from typing import Final

from pilothouse_manifests.carried import CARRIED, GATEWAY, RBAC, group_of, is_built_in, never_taken
from pilothouse_manifests.former_versions import removed
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.kubernetes.discovery import Documents, KindDiscovery
from pilothouse_server.kubernetes.errors import NotFound, Refused
from pilothouse_server.kubernetes.objects import AnyObject, Resource
from pilothouse_server.objects.model import CarriedObject

# Maximum number of objects of a kind in a namespace, unless the cluster's settings say otherwise.
MOST_PER_NAMESPACE: Final = 1000
# The reason for an object whose kind its cluster does not serve.
KIND_NOT_FOUND: Final = "KindNotFound"
NOT_OPEN: Final = "KIND_NOT_OPEN"
_PLURALS: Final[dict[tuple[str, str], str]] = {
    ("", "ServiceAccount"): "serviceaccounts",
    ("networking.k8s.io", "Ingress"): "ingresses",
    ("networking.k8s.io", "NetworkPolicy"): "networkpolicies",
    ("policy", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("autoscaling", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    (GATEWAY, "Gateway"): "gateways",
    (GATEWAY, "HTTPRoute"): "httproutes",
    (RBAC, "Role"): "roles",
    (RBAC, "RoleBinding"): "rolebindings",
}
# Only the API server and people write objects of these kinds, and their content is not in `spec`.
_WITHOUT_SPEC: Final = frozenset({"ServiceAccount", "Role", "RoleBinding"})


def resource_of(api_version: str, kind: str, plural: str) -> Resource[AnyObject]:
    """Returns how objects of a kind are addressed in the API."""
    prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    marked = "version" if is_built_in(api_version, kind) and kind in _WITHOUT_SPEC else "content"
    return Resource(prefix, plural, kind, AnyObject, marked=marked)  # type: ignore[arg-type]


def built_in(api_version: str, kind: str) -> Resource[AnyObject] | None:
    """Returns the resource of a kind that is open by default, in a version that is carried; None for any other."""
    if (api_version, kind) not in CARRIED:
        return None
    return resource_of(api_version, kind, _PLURALS[group_of(api_version), kind])


async def resource_on(
    client: Documents, discovery: KindDiscovery, carried: CarriedObject
) -> Resource[AnyObject]:
    """Returns how the object is addressed on its cluster.

    Raises:
        Refused: `KindNotFound`, the cluster does not serve the kind; `ClusterScoped`, it is not namespaced.
        ClusterError: the cluster cannot be queried.
    """
    if (known := built_in(carried.api_version, carried.kind)) is not None:
        return known
    found = await discovery.find(client, carried.api_version, carried.kind)
    if found is None:
        raise kind_not_found(carried.api_version, carried.kind)
    if not found.namespaced:
        words = f"{carried.kind} of {carried.api_version} belongs to the cluster and not to a namespace"
        raise Refused(words, code=422, status_reason="ClusterScoped")
    return resource_of(carried.api_version, carried.kind, found.plural)


def kind_not_found(api_version: str, kind: str) -> NotFound:
    """Returns the error for a kind that the cluster does not serve."""
    words = f"the cluster has no kind {kind} of {api_version}: install its definition"
    return NotFound(words, code=404, status_reason=KIND_NOT_FOUND)


def is_custom(api_version: str, kind: str) -> bool:
    """Returns whether a kind is a custom resource."""
    return not is_built_in(api_version, kind)


def refuse_closed(api_version: str, kind: str, *, opened: bool) -> None:
    """Raises FailedPrecondition for a kind that is not open. `opened`: the cluster's `object_kinds` has it."""
    former = removed(api_version, kind)
    if former is not None:
        words = f"is not served since Kubernetes 1.{former.removed}: {former.advice}"
        raise _not_open(api_version, kind, words)
    never = never_taken(api_version, kind)
    if never is not None:
        raise _not_open(api_version, kind, f"is never carried: {never}")
    if (api_version, kind) in CARRIED or opened:
        return
    if is_built_in(api_version, kind):
        versions = sorted(version for version, each in CARRIED if each == kind)
        raise _not_open(api_version, kind, f"is only carried in other versions: {', '.join(versions)}")
    raise _not_open(
        api_version, kind, "is not open on this cluster: an administrator can open it in object_kinds"
    )


def _not_open(api_version: str, kind: str, words: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"object.kind: {kind} of {api_version} {words}",
        reason=NOT_OPEN,
        metadata={"field": "object.kind", "api_version": api_version, "kind": kind},
    )
