"""Values of clusters, independent of storage, transport and connections."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from pilothouse_server.values.resources import Condition

ClusterStatus = Literal["pending", "healthy", "unreachable", "unauthorized", "deregistering"]
KindOpenTo = Literal["privileged", "tenants"]
OrphanState = Literal["undecided", "left", "kept", "deleting"]
OrphanAction = Literal["import", "keep", "delete"]

ORPHANS_UNDECIDED = "OrphansUndecided"


class ObjectKind(msgspec.Struct, frozen=True, omit_defaults=True):
    """A kind of custom resource that a cluster opens; an item of `clusters.object_kinds`.

    `max_per_namespace`: 0 means the default. `values.document_paths` defines the form of the paths.
    """

    api_version: str
    kind: str
    open_to: KindOpenTo = "privileged"
    max_per_namespace: int = 0
    secret_paths: tuple[str, ...] = ()
    refused_paths: tuple[str, ...] = ()


class Cluster(msgspec.Struct, frozen=True):
    """`credentials_expires_at`: known if the stored credentials contain it.

    `leader`: the server that observes it.
    """

    id: int
    uid: str
    name: str
    api_server: str
    display_name: str = ""
    labels: dict[str, str] = {}
    status: ClusterStatus = "pending"
    reason: str = ""
    message: str = ""
    version: str = ""
    last_seen_at: datetime | None = None
    stale_since: datetime | None = None
    credentials_expires_at: datetime | None = None
    leader: str = ""
    resource_version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    object_kinds: tuple[ObjectKind, ...] = ()
    shared_gateways: tuple[str, ...] = ()
    forbid_blocking_budgets: bool = False


class OrphanedObject(msgspec.Struct, frozen=True):
    """An object on a cluster that carries our label and that the database does not have.

    `uid`: the object's uid in Kubernetes. `decided_at`: None until an administrator decides.
    """

    cluster_name: str
    kind: str
    kubernetes_namespace: str
    name: str
    uid: str
    state: OrphanState
    first_seen_at: datetime | None = None
    decided_at: datetime | None = None


class OrphanSweeps(msgspec.Struct, frozen=True):
    """The known orphans of a cluster.

    `is_listed`: the cluster was swept since the present history began. `is_held`: not all orphans have been decided
    about since then, so none is deleted automatically.
    """

    is_listed: bool
    is_held: bool
    undecided: int
