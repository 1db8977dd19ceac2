"""Reads the facts of a namespace and its cluster that the rules for an object of a kind need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse_manifests.carried import GATEWAY, RBAC
from pilothouse_server.clusters.model import ObjectKind
from pilothouse_server.containers.workloads import WORKLOADS
from pilothouse_server.guard.model import CarriedFacts, OpenedKind
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.objects import documents, kinds, repository
from pilothouse_server.objects.kinds import MOST_PER_NAMESPACE
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.objects.scaling import AUTOSCALER
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.document_paths import parsed

_BINDING: Final = (RBAC, "RoleBinding")
_BUDGET: Final = ("policy", "PodDisruptionBudget")
# Groups of kinds that are open by default and whose rules need settings of the cluster.
_COMPARED_WITH_CLUSTER: Final = frozenset({GATEWAY, "policy"})
# The secret paths of a kind, each as its steps.
SecretPaths = tuple[tuple[str, ...], ...]


class ClusterSettings(msgspec.Struct, frozen=True):
    """The settings of a cluster for carried objects."""

    object_kinds: tuple[ObjectKind, ...] = ()
    shared_gateways: tuple[str, ...] = ()
    forbid_blocking_budgets: bool = False

    def of(self, api_version: str, kind: str) -> ObjectKind | None:
        """Returns a kind as the cluster's settings open it; None if they do not."""
        named = (each for each in self.object_kinds if (each.api_version, each.kind) == (api_version, kind))
        return next(named, None)

    def most(self, api_version: str, kind: str) -> int:
        """Returns the maximum number of objects of a kind in a namespace."""
        opened = self.of(api_version, kind)
        return (0 if opened is None else opened.max_per_namespace) or MOST_PER_NAMESPACE


class KindFacts(msgspec.Struct, frozen=True):
    """The facts about a kind in a namespace.

    `compared`: the facts that the guard needs. `most`: maximum number of objects of the kind in the namespace.
    `secret_paths`: fields whose values no record shows.
    """

    compared: CarriedFacts = CarriedFacts()
    most: int = MOST_PER_NAMESPACE
    secret_paths: SecretPaths = ()

    @property
    def is_opened(self) -> bool:
        """Whether the cluster's settings open the kind, which kinds that are open by default do not need."""
        return self.compared.opened is not None


async def of_cluster(transaction: ReadTransaction, cluster_name: str) -> ClusterSettings:
    """Returns the settings of a cluster; the defaults for a cluster that was deleted."""
    found = await repository.cluster_settings(transaction, cluster_name)
    return ClusterSettings() if found is None else msgspec.convert(found, ClusterSettings)


async def of_kind(transaction: ReadTransaction, namespace: Namespace, wanted: CarriedObject) -> KindFacts:
    """Returns the facts for an object that is created or changed in a namespace."""
    needed = kinds.is_custom(wanted.api_version, wanted.kind) or wanted.api_group in _COMPARED_WITH_CLUSTER
    settings = await of_cluster(transaction, namespace.cluster_name) if needed else ClusterSettings()
    opened = settings.of(wanted.api_version, wanted.kind)
    kind, document = (wanted.api_group, wanted.kind), _document(wanted)
    compared = CarriedFacts(
        allowed_hosts=namespace.allowed_hosts,
        shared_gateways=settings.shared_gateways,
        roles=await _roles(transaction, namespace) if kind == _BINDING else None,
        scalable=await _scalable(transaction, namespace, document) if kind == AUTOSCALER else None,
        pods=await _pods(transaction, namespace, document) if kind == _BUDGET else None,
        policies_protected=namespace.network_policies == "protected",
        forbid_blocking_budgets=settings.forbid_blocking_budgets,
        opened=None if opened is None else _opened(opened),
    )
    secret_paths = () if opened is None else tuple(map(parsed, opened.secret_paths))
    return KindFacts(compared, settings.most(wanted.api_version, wanted.kind), secret_paths)


def _opened(kind: ObjectKind) -> OpenedKind:
    return OpenedKind(
        kind.api_version,
        kind.kind,
        to_tenants=kind.open_to == "tenants",
        refused_paths=tuple(map(parsed, kind.refused_paths)),
    )


def _document(wanted: CarriedObject) -> Manifest:
    """Returns the document; empty during an import: its objects are not known yet."""
    return documents.manifest(wanted) if wanted.document else {}


async def _roles(transaction: ReadTransaction, namespace: Namespace) -> dict[str, Mapping[str, Any]]:
    found = await repository.of_kind(transaction, namespace.id, RBAC, "Role")
    return {each.name: documents.manifest(each) for each in found if each.deletion_requested_at is None}


async def _scalable(
    transaction: ReadTransaction, namespace: Namespace, document: Manifest
) -> set[tuple[str, str]]:
    """Returns kind and name on the cluster of the containers that have the target's name."""
    named = _at(document, "spec", "scaleTargetRef", "name")
    # An empty name selects all containers, for a target that is not known yet.
    name = named if isinstance(named, str) else ""
    found = await repository.workloads(transaction, namespace.id, name)
    return {(WORKLOADS[tag].kind, each) for tag, each in found if tag in WORKLOADS}


async def _pods(transaction: ReadTransaction, namespace: Namespace, document: Manifest) -> int | None:
    """Returns how many pods a disruption budget selects; None if it does not select them by labels alone."""
    selector = _at(document, "spec", "selector")
    labels = _at(selector, "matchLabels")
    if not isinstance(labels, dict) or not labels or (isinstance(selector, dict) and len(selector) > 1):
        return None
    return await repository.selected_pods(transaction, namespace.id, labels)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
