"""NetworkService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from pilothouse.network.v1 import network_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.errors import missing
from pilothouse_server.guard.model import Keys
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.network import messages, operations
from pilothouse_server.network.dry_run import check_on_cluster
from pilothouse_server.network.model import Service
from pilothouse_server.network.operations import ServiceRights
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.cached_reads import CachedReads
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watch import watch
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.values.key_patterns import KeyPatterns

# The import is in a layer above this noun, so it is passed in.
ImportServices = Callable[
    [pb.ImportServicesRequest, Call, ServiceRights], Awaitable[pb.ImportServicesResponse]
]
_READS = CachedReads(
    operations.CACHED,
    messages.CACHE,
    AnswerField(pb.GetServiceResponse, "service"),
    ListAnswer(pb.ListServicesResponse, "services"),
)


class NetworkService:
    """Serves `pilothouse.network.v1.NetworkService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["NetworkService"]

    def __init__(
        self,
        watches: WatchServer,
        page_key: bytes,
        connect: Connect,
        import_services: ImportServices,
        keys: Keys,
        guarded: KeyPatterns,
    ) -> None:
        self._watches = watches
        self._listed = WatchedList(watches, WATCH)
        self._page_key = page_key
        self._connect = connect
        self._import_services = import_services
        self._keys = keys
        self._guarded = guarded

    async def CreateService(self, request: pb.CreateServiceRequest, call: Call) -> pb.CreateServiceResponse:
        """Creates a Service."""
        created = await operations.create(
            await call.transaction(),
            request.namespace,
            messages.SERVICE.from_proto(request.service),
            rights=self._rights(call, request.namespace),
        )
        shown, told = await self._answer(call, created)
        return pb.CreateServiceResponse(service=shown, warnings=told)

    async def GetService(self, request: pb.GetServiceRequest, call: Call) -> pb.GetServiceResponse | bytes:
        """Returns one Service."""
        stored = await _READS.get(request, call)
        if stored is not None:
            return stored
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
        return pb.GetServiceResponse(service=_described(call, found))

    async def ListServices(self, request: pb.ListServicesRequest, call: Call) -> bytes:
        """Lists Services."""
        return await _READS.list(request, call, self._page_key, self._listed)

    async def UpdateService(self, request: pb.UpdateServiceRequest, call: Call) -> pb.UpdateServiceResponse:
        """Changes the desired state of a Service."""
        paths = check_update_mask(pb.Service, request.update_mask, messages.SERVICE.updatable)
        if not paths:
            raise missing("update_mask")
        changed = await operations.change(
            await call.transaction(),
            request.namespace,
            request.name,
            messages.SERVICE.merger(request.service, paths),
            call.noting(wire.etag_check(request.etag or request.service.etag), messages.SERVICE.to_proto),
            rights=self._rights(call, request.namespace),
        )
        shown, told = await self._answer(call, changed)
        return pb.UpdateServiceResponse(service=shown, warnings=told)

    async def DeleteService(self, request: pb.DeleteServiceRequest, call: Call) -> pb.DeleteServiceResponse:
        """Deletes a Service."""
        gone = await operations.delete(
            await call.transaction(), request.namespace, request.name, wire.etag_check(request.etag)
        )
        shown, _ = await self._answer(call, gone)
        return pb.DeleteServiceResponse(service=shown)

    @waits_outside
    async def ImportServices(
        self, request: pb.ImportServicesRequest, call: Call
    ) -> pb.ImportServicesResponse:
        """Takes existing Services over."""
        return await self._import_services(request, call, self._rights(call, request.namespace))

    def WatchServices(self, _request: pb.WatchServicesRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches Services."""
        return watch(self._watches, call, _WATCHED)

    def _rights(self, call: Call, namespace: str) -> ServiceRights:
        return ServiceRights(Labelling(self._guarded, call.may(namespace)), self._keys)

    async def _answer(
        self, call: Call, service: Service
    ) -> tuple[pb.Service, Iterable[resource_pb2.Warning]]:
        """Returns a mutation's response. With `validate_only` the cluster tries it first, without any lock.

        The warnings are those of the cluster.
        """
        shown = _described(call, service)
        if not call.validate_only:
            return shown, ()
        await call.leave_transaction()
        return shown, map(wire.WARNING.to_proto, await check_on_cluster(self._connect, service))


_WATCHED = Watched("service", _READS.first_state, statuses=messages.STATUS.word, message=pb.Service)
WATCH = NounWatch.of(_WATCHED, pb.DESCRIPTOR.services_by_name["NetworkService"], "WatchServices")


def _described(call: Call, service: Service) -> pb.Service:
    call.describe(resource_id=service.id, resource_uid=service.uid, namespace_id=service.namespace_id)
    return messages.SERVICE.to_proto(service)
