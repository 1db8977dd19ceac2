"""Common values of all resources: ids that cannot be swapped, and conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NewType

import msgspec

ContainerId = NewType("ContainerId", int)
NamespaceId = NewType("NamespaceId", int)

ConditionStatus = Literal["True", "False", "Unknown"]


class Condition(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The state of one aspect of a resource.

    `made_from`: uid/generation of the cluster's object that it describes, if that matters; not shown to callers.
    """

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    made_from: str = ""


class ObjectWarning(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A warning about an object that was accepted. `path`: the field that it is about, if known."""

    reason: str
    path: str = ""
    message: str = ""


class NamespaceRef(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The namespace that a resource is in, and where it is: its cluster, and its name there."""

    id: NamespaceId = NamespaceId(0)
    name: str = ""
    uid: str = ""
    cluster_name: str = ""
    kubernetes_name: str = ""


class Namespaced(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of a resource in a namespace; `namespace_ref` is empty until the resource is assigned to one."""

    namespace_ref: NamespaceRef = NamespaceRef()

    @property
    def namespace(self) -> str:
        """The name of the namespace."""
        return self.namespace_ref.name

    @property
    def namespace_id(self) -> NamespaceId:
        """The id of the namespace."""
        return self.namespace_ref.id

    @property
    def namespace_uid(self) -> str:
        """The uid of the namespace."""
        return self.namespace_ref.uid

    @property
    def cluster_name(self) -> str:
        """The cluster that the namespace is on."""
        return self.namespace_ref.cluster_name

    @property
    def kubernetes_namespace(self) -> str:
        """The name of the namespace on its cluster."""
        return self.namespace_ref.kubernetes_name


class Reconciled(Namespaced, frozen=True, kw_only=True):
    """Base of a resource that the reconciler applies to its cluster.

    `generation` counts changes of the desired state, `resource_version` is the etag, `row_version` counts every write.
    """

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
        """Whether the cluster is not known to match the desired state yet."""
        return self.observed_generation < self.generation or self.deletion_requested_at is not None
