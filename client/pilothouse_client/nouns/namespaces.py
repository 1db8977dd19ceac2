"""Namespaces and clusters; `pilothouse.namespace.v1.NamespaceService` documents each call and its errors."""

from __future__ import annotations

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Unary, Watch, whole
from pilothouse_client.transport import TransportT


class Namespaces(NounClient[TransportT]):
    """`client.namespaces`."""

    create = Unary(pb.CreateNamespaceRequest, pb.CreateNamespaceResponse, lambda answer: answer.namespace)
    get = Unary(pb.GetNamespaceRequest, pb.GetNamespaceResponse, lambda answer: answer.namespace)
    list = Pages(pb.ListNamespacesRequest, pb.ListNamespacesResponse, lambda answer: answer.namespaces)
    update = Unary(pb.UpdateNamespaceRequest, pb.UpdateNamespaceResponse, lambda answer: answer.namespace)
    delete = Unary(pb.DeleteNamespaceRequest, pb.DeleteNamespaceResponse, lambda answer: answer.namespace)
    watch = Watch(pb.WatchNamespacesRequest, pb.WatchNamespacesResponse, lambda answer: answer.namespace)
    get_quota_usage = Unary(pb.GetQuotaUsageRequest, pb.GetQuotaUsageResponse, whole)
    get_cluster = Unary(pb.GetClusterRequest, pb.GetClusterResponse, lambda answer: answer.cluster)
    list_clusters = Pages(pb.ListClustersRequest, pb.ListClustersResponse, lambda answer: answer.clusters)
    register_cluster = Unary(pb.RegisterClusterRequest, pb.RegisterClusterResponse, whole)
    update_cluster = Unary(pb.UpdateClusterRequest, pb.UpdateClusterResponse, whole)
    deregister_cluster = Unary(pb.DeregisterClusterRequest, pb.DeregisterClusterResponse, whole)
    list_orphans = Pages(pb.ListOrphansRequest, pb.ListOrphansResponse, lambda answer: answer.orphans)
    resolve_orphans = Unary(pb.ResolveOrphansRequest, pb.ResolveOrphansResponse, whole)
    get_required_rights = Unary(pb.GetRequiredRightsRequest, pb.GetRequiredRightsResponse, whole)
