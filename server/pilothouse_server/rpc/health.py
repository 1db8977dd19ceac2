"""The health service: checks, lists and watches.

Watches do not outlive the server's readiness. Otherwise the watch of a load balancer would make a drain wait for its
whole grace period. When the server drains, the watch receives NOT_SERVING, and its stream ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from pilothouse_server.runtime.tasks import cancel_and_wait

# The published type stubs lack `List`.
_MESSAGES: Any = health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class _Writing:
    """The context of a watch that records whether a response is being written.

    No write may be cut off, or overlap with another one.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._idle = asyncio.Event()
        self._idle.set()

    async def write(self, answer: health_pb2.HealthCheckResponse) -> None:
        """Sends a response."""
        self._idle.clear()
        try:
            await self._context.write(answer)
        finally:
            self._idle.set()

    async def idle(self) -> None:
        """Returns when nothing is being written.

        Until the caller awaits again, no response is sent.
        """
        while not self._idle.is_set():
            await self._idle.wait()


class Health(aio.HealthServicer):
    """gRPC's own health service, extended by `List`; its watches end when the server drains."""

    def __init__(self) -> None:
        super().__init__()
        self._draining = asyncio.Event()
        self._shutting_down = False
        # The library keeps its own copy private.
        self._statuses: dict[str, int] = {"": SERVING}

    async def List(self, _request: Any, _context: Any) -> Any:
        """Returns the status of every service, "" for the server as a whole."""
        return _MESSAGES.HealthListResponse(
            statuses={
                service: health_pb2.HealthCheckResponse(status=status)
                for service, status in self._statuses.items()
            }
        )

    async def set(self, service: str, status: Any) -> None:
        """Sets the status of a service, unless the server drains."""
        if not self._shutting_down:
            self._statuses[service] = status
        await super().set(service, status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Streams every change of a service's status until the server drains."""
        writing: Any = _Writing(context)
        watching = asyncio.ensure_future(super().Watch(request, writing))
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({watching, draining}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await writing.idle()
        finally:
            await cancel_and_wait(draining, watching)
        # Perhaps for the second time: it is not known whether the watch has sent it.
        await context.write(health_pb2.HealthCheckResponse(status=NOT_SERVING))

    async def drain(self) -> None:
        """Reports NOT_SERVING for every service, even if a status is set afterwards, and ends all watches."""
        self._shutting_down = True
        self._statuses = dict.fromkeys(self._statuses, NOT_SERVING)
        await self.enter_graceful_shutdown()
        self._draining.set()
