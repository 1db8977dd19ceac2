"""ImportContainers of the container service: request → operations → response."""

from __future__ import annotations

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.encryption import Envelopes
from pilothouse_server.importing import dependencies, messages, operations
from pilothouse_server.namespaces import operations as namespaces
from pilothouse_server.rpc.call import Call


class ImportHandler:
    """Serves `ContainerService.ImportContainers`."""

    def __init__(self, connect: Connect, envelopes: Envelopes) -> None:
        self._connect = connect
        self._envelopes = envelopes

    async def __call__(self, request: pb.ImportContainersRequest, call: Call) -> pb.ImportContainersResponse:
        """Takes existing Deployments over. The cluster is asked before the transaction begins."""
        async with call.read() as reading:
            namespace = await namespaces.locate(reading, request.namespace)
            existing = await dependencies.find_existing(reading, namespace)
        call.describe(namespace_id=namespace.id)
        namespaces.refuse_inactive(namespace)
        may = call.may(namespace.name)
        candidates = await operations.discover(
            self._connect, namespace, request.names, request.label_selector, existing, may
        )
        taken = await operations.create(
            await call.transaction(), request.namespace, candidates, self._envelopes, may
        )
        call.describe(**operations.record(taken))
        return pb.ImportContainersResponse(results=[messages.imported_container(item) for item in taken])
