"""A watch leaves nothing in memory, however it ends: hundreds of them begin and end all day."""

from __future__ import annotations

import gc
from typing import Any

import grpc.aio
import pytest

from pilothouse.container.v1 import container_pb2, container_pb2_grpc
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.rpc.watch import _Changes
from tests.garbage import without_looks
from tests.harness import Server
from tests.waiting import poll_until, within

_WATCHES = 10


async def _kept() -> set[int]:
    """Returns the ids of the watches that the interpreter still keeps."""
    return {id(each) for each in gc.get_objects() if type(each) is _Changes}


@pytest.mark.full
@pytest.mark.parametrize("ends", ["taken back", "cut off"])
async def test_a_watch_that_its_client_leaves_is_freed(server: Server, ends: str) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="watched"))
    metadata = (("authorization", f"Bearer {await server.token()}"),)
    request = container_pb2.WatchContainersRequest(namespace="watched")
    with without_looks():
        # Watches of earlier tests.
        others = await _kept()
        async with within(30.0), grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = container_pb2_grpc.ContainerServiceStub(channel)
            watches = [stub.WatchContainers(request, metadata=metadata) for _ in range(_WATCHES)]
            for each in watches:
                assert (await each.read()).change_type == resource.CHANGE_TYPE_SYNCED
            ours = await _kept() - others
            assert len(ours) == _WATCHES
            if ends == "taken back":
                for each in watches:
                    each.cancel()
        await poll_until(_kept, ours.isdisjoint, seconds=10)
