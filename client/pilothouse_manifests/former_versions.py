"""API versions of Kubernetes' own kinds that are removed, or will be removed in a later release.

The list comes from Kubernetes' Deprecated API Migration Guide and the life cycles in its API packages (`k8s.io/api`,
`zz_generated.prerelease-lifecycle.go`), and was compared with the schemas of 1.25 to 1.37. Cluster-scoped kinds are
left out, because the platform never takes them. `pilothouse apply` and the server refuse a removed version and name the
current one. The server warns about a deprecated version without asking the cluster.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_SELECTOR: Final = "spec.selector is required there"
_INGRESS: Final = (
    "there, backends are service.name and service.port.number or .name, spec.backend is spec.defaultBackend, "
    "and each path has a pathType (ImplementationSpecific is the former behaviour)"
)
_REQUESTS: Final = "there, requests of spec.devices have their fields in exactly or firstAvailable"


class FormerVersion(NamedTuple):
    """`deprecated` and `removed` are minor versions of Kubernetes 1; `present` is the API version to write.

    `deprecated` equals `removed` for an alpha version that was dropped without notice. `changes`: how the current
    version differs, if a manifest needs more than a change of its version.
    """

    deprecated: int
    removed: int
    present: str
    changes: str = ""

    @property
    def advice(self) -> str:
        """The version to write, and how it differs."""
        return f"write {self.present}" + (f"; {self.changes}" if self.changes else "")


_Table = dict[tuple[str, str], FormerVersion]


def _of(kinds: str, *versions: str, at: tuple[int, int], present: str, changes: str = "") -> _Table:
    found = FormerVersion(*at, present, changes)
    return {(version, kind): found for version in versions for kind in kinds.split()}


FORMER: Final[_Table] = {
    **_of(
        "Deployment DaemonSet ReplicaSet",
        "extensions/v1beta1",
        at=(8, 16),
        present="apps/v1",
        changes=_SELECTOR,
    ),
    **_of("Deployment StatefulSet", "apps/v1beta1", at=(8, 16), present="apps/v1", changes=_SELECTOR),
    **_of(
        "Deployment StatefulSet DaemonSet ReplicaSet",
        "apps/v1beta2",
        at=(9, 16),
        present="apps/v1",
        changes=_SELECTOR,
    ),
    **_of("NetworkPolicy", "extensions/v1beta1", at=(9, 16), present="networking.k8s.io/v1"),
    **_of("Ingress", "extensions/v1beta1", at=(14, 22), present="networking.k8s.io/v1", changes=_INGRESS),
    **_of(
        "Ingress", "networking.k8s.io/v1beta1", at=(19, 22), present="networking.k8s.io/v1", changes=_INGRESS
    ),
    **_of(
        "Role RoleBinding",
        *("rbac.authorization.k8s.io/v1alpha1", "rbac.authorization.k8s.io/v1beta1"),
        at=(17, 22),
        present="rbac.authorization.k8s.io/v1",
    ),
    **_of("CronJob", "batch/v1beta1", at=(21, 25), present="batch/v1"),
    **_of("CronJob", "batch/v2alpha1", at=(21, 21), present="batch/v1"),
    **_of(
        "PodDisruptionBudget",
        "policy/v1beta1",
        at=(21, 25),
        present="policy/v1",
        changes="there, an empty spec.selector selects all pods of the namespace instead of none",
    ),
    **_of(
        "HorizontalPodAutoscaler",
        "autoscaling/v2beta1",
        at=(22, 25),
        present="autoscaling/v2",
        changes="there, targets of spec.metrics are a target with type and value, averageValue or averageUtilization",
    ),
    **_of("HorizontalPodAutoscaler", "autoscaling/v2beta2", at=(23, 26), present="autoscaling/v2"),
    **_of("CSIStorageCapacity", "storage.k8s.io/v1alpha1", at=(21, 24), present="storage.k8s.io/v1"),
    **_of("CSIStorageCapacity", "storage.k8s.io/v1beta1", at=(24, 27), present="storage.k8s.io/v1"),
    **_of("Workload", "scheduling.k8s.io/v1alpha1", at=(36, 36), present="scheduling.k8s.io/v1beta1"),
    **_of(
        "Workload PodGroup", "scheduling.k8s.io/v1alpha2", at=(37, 37), present="scheduling.k8s.io/v1beta1"
    ),
    **_of(
        "ResourceClaim ResourceClaimTemplate",
        "resource.k8s.io/v1alpha2",
        at=(31, 31),
        present="resource.k8s.io/v1",
        changes=_REQUESTS,
    ),
    **_of(
        "ResourceClaim ResourceClaimTemplate",
        "resource.k8s.io/v1alpha3",
        at=(34, 34),
        present="resource.k8s.io/v1",
        changes=_REQUESTS,
    ),
    **_of(
        "ResourceClaim ResourceClaimTemplate",
        "resource.k8s.io/v1beta1",
        at=(35, 38),
        present="resource.k8s.io/v1",
        changes=_REQUESTS,
    ),
    **_of(
        "ResourceClaim ResourceClaimTemplate",
        "resource.k8s.io/v1beta2",
        at=(36, 39),
        present="resource.k8s.io/v1",
    ),
}
# The oldest version of Kubernetes that the platform manages; see `schemas`.
_OLDEST_CLUSTER: Final = 30


def removed(api_version: str, kind: str) -> FormerVersion | None:
    """Returns the facts about a version that no cluster of the platform serves any more; None if one may serve it."""
    found = FORMER.get((api_version, kind))
    return found if found is not None and found.removed <= _OLDEST_CLUSTER else None


def deprecated(api_version: str, kind: str) -> FormerVersion | None:
    """Returns the facts about a deprecated version that clusters may still serve.

    None for all others."""
    found = FORMER.get((api_version, kind))
    return found if found is not None and found.removed > _OLDEST_CLUSTER else None
