"""The calls of NamespaceService that are about clusters: request → operation → response."""

from __future__ import annotations

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.clusters import messages
from pilothouse_server.clusters.access import ClusterAccess
from pilothouse_server.clusters.operations import deregistration, registration
from pilothouse_server.clusters.operations.deregistration import ClusterContents
from pilothouse_server.clusters.refusals import in_a_seat, unless_away
from pilothouse_server.errors import missing
from pilothouse_server.kubernetes import rights
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.admission.seats import before_cluster
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.validation import check_update_mask

# All clusters that are tried out before they are registered count as one.
_UNREGISTERED = ""

_CLUSTERS = ListAnswer(pb.ListClustersResponse, "clusters")


class ClusterCalls:
    """What NamespaceService serves about clusters."""

    def __init__(self, access: ClusterAccess, page_key: bytes, contents: ClusterContents) -> None:
        self._access = access
        self._connect = unless_away(in_a_seat(access.connect, before_cluster), access.known_away)
        self._page_key = page_key
        self._cluster_contents = contents

    @waits_outside
    async def RegisterCluster(
        self, request: pb.RegisterClusterRequest, call: Call
    ) -> pb.RegisterClusterResponse:
        """Tries a cluster out and registers it."""
        wanted = messages.CLUSTER.from_proto(request.cluster)
        if not wanted.name:
            raise missing("cluster.name")
        credentials = await messages.read_credentials(request.credentials, self._access.reach)
        async with call.read() as transaction:
            await registration.refuse_taken(transaction, wanted.name)
        await before_cluster(_UNREGISTERED)
        tried_out = await self._access.try_out(wanted.name, credentials)
        registered = await registration.register(
            await call.transaction(), wanted, tried_out, self._access.envelopes
        )
        call.describe(resource_id=registered.id, resource_uid=registered.uid)
        return pb.RegisterClusterResponse(
            cluster=messages.CLUSTER.to_proto(registered),
            missing_rights=[messages.right(right, denied=True) for right in tried_out.missing_rights],
        )

    async def GetCluster(self, request: pb.GetClusterRequest, call: Call) -> pb.GetClusterResponse:
        """Returns one cluster."""
        async with call.read() as transaction:
            located = await registration.locate(transaction, request.name)
        call.describe(resource_id=located.id, resource_uid=located.uid)
        (found,) = await registration.with_leaders(call.store, [located])
        return pb.GetClusterResponse(cluster=messages.CLUSTER.to_proto(found))

    async def ListClusters(self, _request: pb.ListClustersRequest, call: Call) -> bytes:
        """Lists clusters."""
        page = wire.page_request(call, self._page_key)
        async with call.read() as transaction:
            found, next_page = await registration.list_page(transaction, page)
        found = await registration.with_leaders(call.store, found)
        return await _CLUSTERS.rendered(found, messages.CLUSTER.to_proto, next_page)

    @waits_outside
    async def UpdateCluster(self, request: pb.UpdateClusterRequest, call: Call) -> pb.UpdateClusterResponse:
        """Changes a cluster, its credentials after they were tried out."""
        renewed = request.HasField("credentials")
        paths = check_update_mask(pb.Cluster, request.update_mask, messages.CLUSTER.updatable)
        if not paths and not renewed:
            raise missing("update_mask")
        check = call.noting(wire.etag_check(request.etag or request.cluster.etag), messages.CLUSTER.to_proto)
        tried_out = None
        if renewed:
            credentials = await messages.read_credentials(request.credentials, self._access.reach)
            async with call.read() as transaction:
                check(await registration.locate(transaction, request.name))
            self._access.refuse_configured(request.name)
            await before_cluster(request.name)
            tried_out = await self._access.try_out(request.name, credentials)
        changed = await registration.change(
            await call.transaction(),
            request.name,
            messages.CLUSTER.from_proto(request.cluster),
            paths,
            tried_out,
            self._access.envelopes,
            check,
        )
        call.describe(resource_id=changed.id, resource_uid=changed.uid, credentials_renewed=renewed)
        if renewed:
            call.facts.secrets = {"credentials": (True, True)}
        denied = tried_out.missing_rights if tried_out is not None else ()
        return pb.UpdateClusterResponse(
            cluster=messages.CLUSTER.to_proto(changed),
            missing_rights=[messages.right(right, denied=True) for right in denied],
        )

    @waits_outside
    async def DeregisterCluster(
        self, request: pb.DeregisterClusterRequest, call: Call
    ) -> pb.DeregisterClusterResponse:
        """Ends a cluster, or begins to."""
        # As the system: what is forgotten with a cluster is removed, which no caller may do by itself.
        transaction = await call.system_transaction()
        await registration.locate(transaction, request.name)
        self._access.refuse_configured(request.name)
        ended, count = await deregistration.deregister(
            transaction,
            request.name,
            messages.OBJECTS_OF[request.objects],
            self._cluster_contents,
            wire.etag_check(request.etag),
        )
        call.describe(
            resource_id=ended.id,
            resource_uid=ended.uid,
            objects=messages.OBJECTS_OF[request.objects],
            namespaces=count,
        )
        return pb.DeregisterClusterResponse(cluster=messages.CLUSTER.to_proto(ended), namespaces=count)

    async def GetRequiredRights(
        self, request: pb.GetRequiredRightsRequest, _call: Call
    ) -> pb.GetRequiredRightsResponse:
        """Returns the rights that the platform needs, and which of them a cluster denies."""
        if request.name:
            await before_cluster(request.name)
        denied = set(await self._access.denied_rights(request.name)) if request.name else set()
        return pb.GetRequiredRightsResponse(
            rights=[messages.right(right, denied=right in denied) for right in rights.RIGHTS],
            manifest=rights.manifest(),
        )
