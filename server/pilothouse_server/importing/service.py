"""ImportContainers, ImportServices and ImportObjects: request → operations → response."""

from __future__ import annotations

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.guard.model import PRIVILEGED, Keys
from pilothouse_server.importing import dependencies, messages, objects, operations, services
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.network.operations import ServiceRights
from pilothouse_server.objects import facts, kinds
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.objects.operations import ObjectRights
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.interceptors.authorization import permission_denied

# The permissions that an import also needs, because it creates containers, Services or objects.
CREATE_PERMISSION = "container.create"
CREATE_SERVICE_PERMISSION = "service.create"
CREATE_OBJECT_PERMISSION = "object.create"


class ImportHandler:
    """Serves `ContainerService.ImportContainers`."""

    def __init__(self, connect: Connect, envelopes: Envelopes, keys: Keys) -> None:
        self._keys = keys
        self._connect = connect
        self._envelopes = envelopes

    async def __call__(self, request: pb.ImportContainersRequest, call: Call) -> pb.ImportContainersResponse:
        """Takes over existing workloads. The cluster is queried before the transaction begins."""
        async with call.read() as reading:
            namespace = await locate_namespace(reading, request.namespace)
            existing = await dependencies.find_existing(reading, namespace)
        call.describe(namespace_id=namespace.id)
        refuse_inactive_namespace(namespace)
        may = call.may(namespace.name)
        if not may(CREATE_PERMISSION):
            raise permission_denied(CREATE_PERMISSION, namespace.name)
        candidates = await operations.discover(
            self._connect,
            namespace,
            operations.Wanted(request.names, request.label_selector, messages.kinds_of(request)),
            existing,
            may,
        )
        if not may(PRIVILEGED):
            candidates = [operations.without_guarded(candidate, self._keys) for candidate in candidates]
        candidates = [messages.shown(candidate) for candidate in candidates]
        taken = await operations.create(
            await call.transaction(), request.namespace, candidates, self._envelopes, self._keys, may
        )
        call.describe(**operations.record(taken))
        return pb.ImportContainersResponse(results=[messages.imported_container(item) for item in taken])


class ServiceImportHandler:
    """Serves `NetworkService.ImportServices`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def __call__(
        self, request: network_pb2.ImportServicesRequest, call: Call, rights: ServiceRights
    ) -> network_pb2.ImportServicesResponse:
        """Takes over existing Services. The cluster is queried before the transaction begins."""
        async with call.read() as reading:
            namespace = await locate_namespace(reading, request.namespace)
        call.describe(namespace_id=namespace.id)
        refuse_inactive_namespace(namespace)
        if not rights.may(CREATE_SERVICE_PERMISSION):
            raise permission_denied(CREATE_SERVICE_PERMISSION, namespace.name)
        candidates = await services.discover(
            self._connect, namespace, request.names, request.label_selector, rights
        )
        candidates = [messages.shown_service(candidate) for candidate in candidates]
        taken = await services.create(await call.transaction(), request.namespace, candidates, rights)
        call.describe(imported=[item.name for item in taken if item.service is not None])
        return network_pb2.ImportServicesResponse(results=map(messages.imported_service, taken))


class ObjectImportHandler:
    """Serves `ObjectService.ImportObjects`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def __call__(
        self, request: object_pb2.ImportObjectsRequest, call: Call, rights: ObjectRights
    ) -> object_pb2.ImportObjectsResponse:
        """Takes over existing objects. The cluster is queried before the transaction begins."""
        sample = CarriedObject(api_version=request.api_version, kind=request.kind)
        async with call.read() as reading:
            namespace = await locate_namespace(reading, request.namespace)
            known = await facts.of_kind(reading, namespace, sample)
        call.describe(namespace_id=namespace.id, object_kind=request.kind)
        refuse_inactive_namespace(namespace)
        if not rights.may(CREATE_OBJECT_PERMISSION):
            raise permission_denied(CREATE_OBJECT_PERMISSION, namespace.name)
        kinds.refuse_closed(request.api_version, request.kind, opened=known.is_opened)
        wanted = objects.ImportedKind(request.api_version, request.kind, known)
        candidates = await objects.discover(
            self._connect, namespace, wanted, request.names, request.label_selector, rights
        )
        taken = await objects.create(await call.transaction(), request.namespace, candidates, rights)
        call.describe(imported=[item.name for item in taken if item.carried is not None])
        return object_pb2.ImportObjectsResponse(results=map(messages.imported_object, taken))
