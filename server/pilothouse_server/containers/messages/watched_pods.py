"""Adds the pods of a container to the responses of its watch.

The pods are read with the caller's rights for each response. A pod changes more often than its container, and has no
events of its own. So each change of the container and each bookmark contains the pods as they are at that moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.containers import operations
from pilothouse_server.containers.messages.container import pod_to_proto
from pilothouse_server.errors import NotFound, missing
from pilothouse_server.rpc import method_rules
from pilothouse_server.rpc.call import Call, Need
from pilothouse_server.rpc.encoding import AnswerField
from pilothouse_server.rpc.interceptors.authorization import authorize
from pilothouse_server.store.paging import LARGEST_PAGE_SIZE, PageRequest

_PODS: Final = AnswerField(pb.WatchContainersResponse, "pods")
_MOST: Final = 100
_EVERY: Final = PageRequest(key=bytes(32), page_size=LARGEST_PAGE_SIZE)
_SERVICE = pb.DESCRIPTOR.services_by_name["ContainerService"]
_LISTING: Final = method_rules.load([_SERVICE])[f"/{_SERVICE.full_name}/ListPods"]
_WITHOUT: Final = (resource.CHANGE_TYPE_SYNCED, resource.CHANGE_TYPE_DELETED)


async def with_pods(call: Call, changes: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields the responses of a watch of one container, each with its pods.

    Raises:
        InvalidArgument: the request names no container.
        PermissionDenied: the caller may not list pods there.
    """
    request: Any = call.request
    for name in ("namespace", "name"):
        if not getattr(request, name):
            raise missing(name)
    authorize(_LISTING, call.caller, request.namespace)
    call.needs = (Need(call.rule, request.namespace), Need(_LISTING, request.namespace))
    async with aclosing(changes) as responses:  # type: ignore[type-var]
        async for response in responses:
            change = pb.WatchContainersResponse.FromString(response).change_type
            yield response if change in _WITHOUT else response + await _pods(call)


async def _pods(call: Call) -> bytes:
    request: Any = call.request
    try:
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
            pods, _ = await operations.list_observed_pods(transaction, found.id, _EVERY)
    except NotFound:
        # The container's deletion event follows.
        return b""
    to_proto = pod_to_proto(found)
    chosen = sorted(pods, key=lambda pod: (pod.ready, pod.name))[:_MOST]
    return b"".join(_PODS.answer(to_proto(pod).SerializeToString()) for pod in chosen)
