"""The calls of NamespaceService that are about clusters: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.clusters import messages
from pilothouse_server.clusters.access import ClusterAccess
from pilothouse_server.clusters.operations import deregistration, orphans, registration
from pilothouse_server.clusters.operations.deregistration import ClusterContents
from pilothouse_server.clusters.operations.orphans import OrphanImport, OrphanImporter, Resolved
from pilothouse_server.clusters.refusals import in_a_seat, unless_away
from pilothouse_server.errors import invalid, missing
from pilothouse_server.flowcontrol.reservation import before_cluster
from pilothouse_server.kubernetes import rights
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.store.paging import every_page
from pilothouse_server.store.unit_of_work import Kind, ReadTransaction

_ORPHANS = ListAnswer(pb.ListOrphansResponse, "orphans")
# The most orphans that an audit record names.
_MOST_NAMED = 100
# Stands for all clusters that are tried out before they are registered: they share the seats of one cluster.
_UNREGISTERED = ""

_CLUSTERS = ListAnswer(pb.ListClustersResponse, "clusters")


class _Importable(NamedTuple):
    """An import's requests: orphans refused by their kind, and the findings about the rest."""

    refused: list[Resolved]
    imports: OrphanImport


async def _resources(
    transaction: ReadTransaction, wanted: WatchFilter, _call: Call
) -> AsyncIterator[pb.Cluster]:
    async for cluster in every_page(lambda page: registration.list_page(transaction, page)):
        if wanted.name in ("", cluster.name) and (
            wanted.selector is None or wanted.selector.matches(cluster.labels)
        ):
            yield messages.CLUSTER.to_proto(cluster)


async def _reload(
    transaction: ReadTransaction, event: FeedEvent, _wanted: WatchFilter, _call: Call
) -> list[tuple[Kind, pb.Cluster]]:
    found = await registration.find(transaction, event.name) if event.kind != "deleted" else None
    if found is None:
        return [("deleted", pb.Cluster(name=event.name, uid=event.labels["uid"]))]
    return [("added" if event.kind == "added" else "modified", messages.CLUSTER.to_proto(found))]


WATCH_CLUSTERS = NounWatch.listed(
    Watched("cluster", _resources, message=pb.Cluster, reload=_reload),
    pb.DESCRIPTOR.services_by_name["NamespaceService"],
    "ListClusters",
)


class ClusterCalls:
    """The calls of NamespaceService about clusters."""

    def __init__(
        self,
        watches: WatchServer,
        access: ClusterAccess,
        page_key: bytes,
        contents: ClusterContents,
        importer: OrphanImporter,
    ) -> None:
        self._listed_clusters = WatchedList(watches, WATCH_CLUSTERS)
        self._importer = importer
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

    async def ListClusters(self, request: pb.ListClustersRequest, call: Call) -> bytes:
        """Lists clusters."""
        mask = read_mask.of_request(request, pb.Cluster)
        page = wire.page_request(call, self._page_key)
        listed = self._listed_clusters.begin()
        async with call.read() as transaction:
            found, next_page = await registration.list_page(transaction, page)
            token = await listed.token(call, transaction)
        found = await registration.with_leaders(call.store, found)
        return await _CLUSTERS.rendered(found, messages.CLUSTER.to_proto, next_page, token, mask)

    @waits_outside
    async def UpdateCluster(self, request: pb.UpdateClusterRequest, call: Call) -> pb.UpdateClusterResponse:
        """Changes a cluster; new credentials are tried out first."""
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
        """Ends a cluster, or begins to end it."""
        # As the system role: the rows that are removed with a cluster are beyond the caller's rights.
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

    async def ListOrphans(self, request: pb.ListOrphansRequest, call: Call) -> bytes:
        """Lists the orphans of a cluster."""
        page = wire.page_request(call, self._page_key, request.cluster_name)
        async with call.read() as transaction:
            found, next_page = await orphans.list_page(transaction, request.cluster_name, page)
        return await _ORPHANS.rendered(found, messages.ORPHAN.to_proto, next_page)

    @waits_outside
    async def ResolveOrphans(
        self, request: pb.ResolveOrphansRequest, call: Call
    ) -> pb.ResolveOrphansResponse:
        """Decides about orphans of a cluster.

        For an import, the cluster is read before the transaction begins.
        """
        if bool(request.uids) == request.all:
            raise invalid(
                "uids", "must name orphans if `all` is not set, and none if it is set", reason="REQUIRED"
            )
        cluster, action = request.cluster_name, messages.ACTIONS.word[request.action]
        uids = None if request.all else list(dict.fromkeys(request.uids))
        if action == "import":
            found = await self._importable(call, cluster, uids)
            transaction = await call.transaction()
            located = await orphans.lock(transaction, cluster)
            resolved = [*found.refused, *await found.imports.create(transaction)]
            await orphans.take(transaction, located, resolved)
        else:
            transaction = await call.transaction()
            located = await orphans.lock(transaction, cluster)
            chosen = await orphans.find(transaction, cluster, uids)
            resolved = await orphans.decide(
                transaction, located, chosen, "kept" if action == "keep" else "deleting"
            )
        sweeps = await orphans.settle(transaction, located)
        done = [item for item in resolved if not item.problems]
        call.describe(
            resource_id=located.id,
            resource_uid=located.uid,
            decision=action,
            orphans=[messages.orphan_name(item.orphan) for item in done[:_MOST_NAMED]],
            resolved=len(done),
            deletion_held=sweeps.is_held,
        )
        return pb.ResolveOrphansResponse(
            results=[messages.resolved(item) for item in resolved if item.problems or item.imported_as],
            resolved=len(done),
            undecided=sweeps.undecided,
            deletion_held=sweeps.is_held,
        )

    async def _importable(self, call: Call, cluster: str, uids: list[str] | None) -> _Importable:
        if uids is not None and len(uids) > orphans.MOST_IMPORTED:
            raise invalid(
                "uids", f"must name at most {orphans.MOST_IMPORTED} orphans for an import", reason="TOO_MANY"
            )
        async with call.read() as transaction:
            chosen = await orphans.find(transaction, cluster, uids, orphans.IMPORTABLE)
        refused = [each for orphan in chosen if (each := orphans.not_importable(orphan)) is not None]
        wanted = [orphan for orphan in chosen if orphans.not_importable(orphan) is None]
        imports = await self._importer.discover(call.read, cluster, wanted[: orphans.MOST_IMPORTED], call.may)
        return _Importable(refused, imports)

    async def GetRequiredRights(
        self, request: pb.GetRequiredRightsRequest, _call: Call
    ) -> pb.GetRequiredRightsResponse:
        """Returns the rights that the platform needs, and whether a cluster denies each."""
        if request.name:
            await before_cluster(request.name)
        denied = set(await self._access.denied_rights(request.name)) if request.name else set()
        return pb.GetRequiredRightsResponse(
            rights=[messages.right(right, denied=right in denied) for right in rights.RIGHTS],
            manifest=rights.manifest(),
        )
