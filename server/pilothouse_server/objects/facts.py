"""The facts of a namespace and its cluster that an object of a kind is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pilothouse_server.guard.model import CarriedFacts, OpenedKind
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.objects.kinds import MOST_PER_NAMESPACE
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.store.unit_of_work import ReadTransaction


class ClusterKinds(msgspec.Struct, frozen=True):
    """The kinds that a cluster opens, and the most objects of them in a namespace, by version and kind."""

    opened: Mapping[tuple[str, str], OpenedKind] = {}
    limits: Mapping[tuple[str, str], int] = {}

    def of(self, api_version: str, kind: str) -> OpenedKind | None:
        """Returns a kind as the cluster opens it; None where it does not."""
        return self.opened.get((api_version, kind))

    def most(self, api_version: str, kind: str) -> int:
        """Returns the most objects of a kind in a namespace."""
        return self.limits.get((api_version, kind)) or MOST_PER_NAMESPACE


class KindFacts(msgspec.Struct, frozen=True):
    """`compared`: the facts that the guard goes by. `most`: objects of the kind in a namespace."""

    compared: CarriedFacts = CarriedFacts()
    most: int = MOST_PER_NAMESPACE

    @property
    def is_opened(self) -> bool:
        """Whether the cluster opens the kind, which is not open by default."""
        return self.compared.opened is not None


async def of_cluster(transaction: ReadTransaction, cluster_name: str) -> ClusterKinds:
    """Returns the kinds that a cluster opens."""
    return ClusterKinds()


async def of_kind(transaction: ReadTransaction, namespace: Namespace, wanted: CarriedObject) -> KindFacts:
    """Returns the facts for an object that is made or changed in a namespace."""
    opened = await of_cluster(transaction, namespace.cluster_name)
    compared = CarriedFacts(opened=opened.of(wanted.api_version, wanted.kind))
    return KindFacts(compared, opened.most(wanted.api_version, wanted.kind))
