"""Clusters: value ↔ protobuf."""

from __future__ import annotations

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.clusters.access import refusal
from pilothouse_server.clusters.model import Cluster
from pilothouse_server.clusters.operations.deregistration import Objects
from pilothouse_server.errors import invalid
from pilothouse_server.kubernetes import credentials as credential_form
from pilothouse_server.kubernetes.credentials import Credentials
from pilothouse_server.kubernetes.errors import CredentialsRefused
from pilothouse_server.kubernetes.rights import Right
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import etag

_STATUS = {
    "pending": pb.CLUSTER_STATUS_PENDING,
    "healthy": pb.CLUSTER_STATUS_HEALTHY,
    "unreachable": pb.CLUSTER_STATUS_UNREACHABLE,
    "unauthorized": pb.CLUSTER_STATUS_UNAUTHORIZED,
    "deregistering": pb.CLUSTER_STATUS_DEREGISTERING,
}
OBJECTS_OF: dict[int, Objects] = {
    pb.DEREGISTERED_OBJECTS_UNSPECIFIED: "refuse",
    pb.DEREGISTERED_OBJECTS_ORPHAN: "orphan",
    pb.DEREGISTERED_OBJECTS_DELETE: "delete",
}


def cluster(value: Cluster) -> pb.Cluster:
    """A cluster as protobuf; never its credentials."""
    return pb.Cluster(
        name=value.name,
        display_name=value.display_name,
        api_server=value.api_server,
        labels=value.labels,
        status=_STATUS[value.status],
        reason=value.reason,
        message=value.message,
        version=value.version,
        last_seen_time=wire.timestamp(value.last_seen_at),
        stale_since=wire.timestamp(value.stale_since),
        uid=value.uid,
        create_time=wire.timestamp(value.created_at),
        update_time=wire.timestamp(value.updated_at),
        etag=etag(value.uid, value.resource_version),
        credentials_expire_time=wire.timestamp(value.credentials_expires_at),
    )


def wanted(message: pb.Cluster) -> Cluster:
    """What a caller asks for; what only the server sets is left at its default."""
    return Cluster(
        id=0,
        uid="",
        name=message.name,
        api_server="",
        display_name=message.display_name,
        labels=dict(message.labels),
    )


def credentials(message: pb.ClusterCredentials) -> Credentials:
    """The credentials of a request, checked as far as that goes without the cluster.

    Raises:
        InvalidArgument: none is given, or they cannot be used.
    """
    source = message.WhichOneof("source")
    try:
        if source == "kubeconfig":
            return credential_form.from_kubeconfig(message.kubeconfig.text, message.kubeconfig.context)
        if source == "address":
            address = message.address
            return credential_form.from_address(
                address.api_server,
                address.token,
                authority=address.certificate_authority,
                proxy_url=address.proxy_url,
            )
    except CredentialsRefused as error:
        raise refusal(error) from None
    if source == "in_cluster":
        return credential_form.IN_CLUSTER
    raise invalid("credentials", "must hold a kubeconfig, an address or in_cluster", reason="REQUIRED")


def right(value: Right, *, denied: bool = False) -> pb.ClusterRight:
    """A right as protobuf."""
    return pb.ClusterRight(
        api_group=value.api_group,
        resource=value.resource,
        verb=value.verb,
        purpose=value.purpose,
        optional=value.optional,
        denied=denied,
    )
