"""The values of a namespace, independent of how it is stored, sent or run."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from pilothouse_server.values.cached_message import CachedMessage
from pilothouse_server.values.resources import Condition, NamespaceId, NamespaceRef

NamespaceStatus = Literal["active", "inactive"]
NetworkPolicies = Literal["open", "protected"]
AllowedServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]


class Quota(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits of a namespace, the document of `namespaces.resource_quota`.

    0 and empty text mean no limit.
    """

    containers: int = 0
    cpu: str = ""
    memory: str = ""
    services: int = 0
    storage: str = ""


class PodDemand(msgspec.Struct, frozen=True):
    """The pods that the containers of a namespace request, and the quota share of the largest container."""

    pods: int = 0
    largest_cpu_millicores: int = 0
    largest_memory_bytes: int = 0


class Namespace(msgspec.Struct, frozen=True):
    """A namespace as stored.

    `default_pod_security`: the level for its Kubernetes namespace if `labels` name none; '' for none.
    `pod_security_level`: the level last observed there; before the first apply, the level that it will get.
    """

    id: NamespaceId
    uid: str
    name: str
    kubernetes_name: str
    cluster_name: str
    display_name: str = ""
    description: str = ""
    status: NamespaceStatus = "active"
    quota: Quota = Quota()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    adopted: bool = False
    default_pod_security: str = ""
    pod_security_level: str = ""
    legal_hold: bool = False
    service_types: tuple[AllowedServiceType, ...] = ()
    external_sources: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    network_policies: NetworkPolicies = "open"
    enforce_on_cluster: bool = False
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    stale_since: datetime | None = None
    generation: int = 1
    observed_generation: int = 0
    resource_version: int = 1
    row_version: int = 1
    deletion_requested_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str = ""

    @property
    def reconciling(self) -> bool:
        return self.observed_generation < self.generation or self.deletion_requested_at is not None

    @property
    def ref(self) -> NamespaceRef:
        """Returns the reference that a resource in this namespace stores."""
        return NamespaceRef(self.id, self.name, self.uid, self.cluster_name, self.kubernetes_name)


class CachedNamespace(CachedMessage, frozen=True):
    """A namespace with its cached message, and since when its cluster's state is stale."""

    stale_since: datetime | None
