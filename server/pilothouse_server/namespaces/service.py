"""NamespaceService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.clusters.access import ClusterAccess
from pilothouse_server.clusters.operations.orphans import OrphanImporter
from pilothouse_server.clusters.service import ClusterCalls
from pilothouse_server.errors import missing
from pilothouse_server.namespaces import messages, operations
from pilothouse_server.namespaces.contents import Contents
from pilothouse_server.namespaces.dry_run import check_on_cluster
from pilothouse_server.namespaces.guarded import Guarded
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watch import watch
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.store.unit_of_work import ReadTransaction

_NAMESPACE = AnswerField(pb.GetNamespaceResponse, "namespace")
_LIST = ListAnswer(pb.ListNamespacesResponse, "namespaces")


class NamespaceService(ClusterCalls):
    """Serves `pilothouse.namespace.v1.NamespaceService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["NamespaceService"]

    def __init__(
        self,
        watches: WatchServer,
        page_key: bytes,
        access: ClusterAccess,
        contents: Contents,
        guarded: Guarded,
        importer: OrphanImporter,
    ) -> None:
        super().__init__(watches, access, page_key, operations.NamespacesOnCluster(contents), importer)
        self._contents = contents
        self._guarded = guarded
        self._watches = watches
        self._listed = WatchedList(watches, WATCH)

    async def CreateNamespace(
        self, request: pb.CreateNamespaceRequest, call: Call
    ) -> pb.CreateNamespaceResponse:
        """Creates a namespace."""
        if not request.namespace.name:
            raise missing("namespace.name")
        transaction = await call.transaction()
        created = await operations.create(
            transaction,
            messages.NAMESPACE.from_proto(request.namespace),
            adopt=request.adopt,
            caller=self._rights(call, request.namespace.name),
        )
        _describe(call, created)
        if call.validate_only:
            await call.leave_transaction()
            await check_on_cluster(self._connect, created)
        return pb.CreateNamespaceResponse(namespace=messages.NAMESPACE.to_proto(created))

    async def GetNamespace(
        self, request: pb.GetNamespaceRequest, call: Call
    ) -> pb.GetNamespaceResponse | bytes:
        """Returns one namespace."""
        ready = await operations.find_cached(call.store, call.user_id, request.name, messages.CACHE.format)
        if ready is not None and ready.message is not None:
            call.describe(
                resource_id=ready.id,
                resource_uid=messages.CACHE.uid(ready.message),
                namespace_id=ready.namespace_id,
            )
            return _NAMESPACE.answer(ready.message, messages.added_to(ready))
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.name)
        _describe(call, found)
        return pb.GetNamespaceResponse(namespace=messages.NAMESPACE.to_proto(found))

    async def ListNamespaces(self, request: pb.ListNamespacesRequest, call: Call) -> bytes:
        """Lists namespaces."""
        page = wire.page_request(call, self._page_key, request.label_selector)
        mask = read_mask.of_request(request, pb.Namespace)
        listed = self._listed.begin()
        async with call.read() as transaction:
            found, next_page = await operations.list_page(
                transaction,
                page,
                wire.label_selector(request.label_selector),
                call.visible_namespaces(),
                messages.CACHE.format,
            )
            token = await listed.token(call, transaction)
        return await _LIST.answer(map(messages.parts, found), next_page, token, mask)

    async def UpdateNamespace(
        self, request: pb.UpdateNamespaceRequest, call: Call
    ) -> pb.UpdateNamespaceResponse:
        """Changes a namespace."""
        if not request.adopt and not request.HasField("namespace"):
            raise missing("namespace")
        paths = check_update_mask(pb.Namespace, request.update_mask, messages.NAMESPACE.updatable)
        if not paths and not request.adopt:
            raise missing("update_mask")
        changed = await operations.change(
            await call.transaction(),
            request.name,
            messages.NAMESPACE.from_proto(request.namespace),
            paths,
            call.noting(wire.etag_check(request.etag or request.namespace.etag), messages.NAMESPACE.to_proto),
            adopt=request.adopt,
            caller=self._rights(call, request.name),
        )
        _describe(call, changed)
        if call.validate_only:
            await call.leave_transaction()
            await check_on_cluster(self._connect, changed)
        return pb.UpdateNamespaceResponse(namespace=messages.NAMESPACE.to_proto(changed))

    async def DeleteNamespace(
        self, request: pb.DeleteNamespaceRequest, call: Call
    ) -> pb.DeleteNamespaceResponse:
        """Marks a namespace for deletion."""
        marked = await operations.delete(
            await call.transaction(),
            request.name,
            cascade=request.cascade,
            contents=self._contents,
            check=wire.etag_check(request.etag),
            may=call.may(request.name),
        )
        _describe(call, marked)
        if call.validate_only:
            await call.leave_transaction()
            await check_on_cluster(self._connect, marked)
        return pb.DeleteNamespaceResponse(namespace=messages.NAMESPACE.to_proto(marked))

    def WatchNamespaces(self, _request: pb.WatchNamespacesRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches namespaces."""
        return watch(self._watches, call, _WATCHED)

    async def GetQuotaUsage(self, request: pb.GetQuotaUsageRequest, call: Call) -> pb.GetQuotaUsageResponse:
        """Returns the usage that counts against a namespace's quota."""
        async with call.read(snapshot=True) as transaction:
            found = await operations.locate(transaction, request.name)
            used = await self._contents.quota_usage(transaction, found.id)
        _describe(call, found)
        return pb.GetQuotaUsageResponse(
            quota=messages.QUOTA.to_proto(found.quota), used=messages.QUOTA.to_proto(used)
        )

    def _rights(self, call: Call, name: str) -> operations.Rights:
        return operations.Rights(self._guarded, call.may(name), may_adopt=call.caller.allows("*"))


async def _resources(transaction: ReadTransaction, wanted: WatchFilter, call: Call) -> AsyncIterator[bytes]:
    visible = wanted.visible
    async for item in operations.stream(
        transaction,
        name=wanted.name,
        status=wanted.status,
        selector=wanted.selector,
        message_format=messages.CACHE.format,
    ):
        if visible is None or item.id in visible:
            yield b"".join(messages.parts(item))


_WATCHED = Watched("namespace", _resources, statuses=messages.STATUS.word, message=pb.Namespace)
WATCH = NounWatch.of(_WATCHED, pb.DESCRIPTOR.services_by_name["NamespaceService"], "WatchNamespaces")


def _describe(call: Call, namespace: Namespace) -> None:
    call.describe(resource_id=namespace.id, resource_uid=namespace.uid, namespace_id=namespace.id)
