"""Namespaces: value ↔ protobuf."""

from __future__ import annotations

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.namespaces.model import Namespace, NamespaceStatus, Quota
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import etag
from pilothouse_server.values.resources import NamespaceId

_STATUS = {
    "active": pb.NAMESPACE_STATUS_ACTIVE,
    "inactive": pb.NAMESPACE_STATUS_INACTIVE,
}
STATUS_OF: dict[int, NamespaceStatus] = {
    pb.NAMESPACE_STATUS_ACTIVE: "active",
    pb.NAMESPACE_STATUS_INACTIVE: "inactive",
}


def namespace(value: Namespace) -> pb.Namespace:
    """A namespace as protobuf."""
    return pb.Namespace(
        name=value.name,
        display_name=value.display_name,
        description=value.description,
        kubernetes_name=value.kubernetes_name,
        cluster_name=value.cluster_name,
        status=_STATUS[value.status],
        resource_quota=quota(value.quota) if value.quota != Quota() else None,
        labels=value.labels,
        annotations=value.annotations,
        uid=value.uid,
        phase=value.phase,
        reason=value.reason,
        message=value.message,
        conditions=wire.conditions(value.conditions),
        create_time=wire.timestamp(value.created_at),
        update_time=wire.timestamp(value.updated_at),
        delete_time=wire.timestamp(value.deletion_requested_at),
        created_by=value.created_by,
        etag=etag(value.uid, value.resource_version),
        generation=value.generation,
        observed_generation=value.observed_generation,
        reconciling=value.reconciling,
        stale_since=wire.timestamp(value.stale_since),
    )


def render(value: Namespace) -> bytes:
    """A namespace as an event holds it."""
    return namespace(value).SerializeToString()


def wanted(message: pb.Namespace) -> Namespace:
    """What a caller asks for; what only the server sets is left at its default."""
    return Namespace(
        id=NamespaceId(0),
        uid="",
        name=message.name,
        kubernetes_name=message.kubernetes_name,
        cluster_name=message.cluster_name,
        display_name=message.display_name,
        description=message.description,
        status=STATUS_OF.get(message.status, "active"),
        quota=Quota(
            containers=message.resource_quota.containers,
            cpu=message.resource_quota.cpu,
            memory=message.resource_quota.memory,
        ),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
    )


def quota(value: Quota) -> pb.ResourceQuota:
    """A quota, or what is used of one, as protobuf."""
    return pb.ResourceQuota(containers=value.containers, cpu=value.cpu, memory=value.memory)
