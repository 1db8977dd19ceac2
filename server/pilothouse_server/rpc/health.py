"""The health service, whose watches do not outlive the server's readiness.

A balancer that watches would keep a drain waiting for its whole grace: it hears that the server does not serve any
more, and its stream ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from pilothouse_server.tasks import cancel_and_wait

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class _Writing:
    """The context of a watch, which knows whether an answer is being written: none may be cut, nor met by another."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._idle = asyncio.Event()
        self._idle.set()

    async def write(self, answer: health_pb2.HealthCheckResponse) -> None:
        """Sends an answer."""
        self._idle.clear()
        try:
            await self._context.write(answer)
        finally:
            self._idle.set()

    async def idle(self) -> None:
        """Returns when nothing is being written; what the caller does before it awaits again meets no answer."""
        while not self._idle.is_set():
            await self._idle.wait()


class Health(aio.HealthServicer):
    """gRPC's own service, less the watches of a server that drains."""

    def __init__(self) -> None:
        super().__init__()
        self._draining = asyncio.Event()

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
        # Perhaps for the second time: whether the watch got so far is not known.
        await context.write(health_pb2.HealthCheckResponse(status=NOT_SERVING))

    async def drain(self) -> None:
        """No service is served any more, whatever is set from now on, and watches end."""
        await self.enter_graceful_shutdown()
        self._draining.set()
