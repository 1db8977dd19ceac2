"""The clients of the clusters, one each, made when first needed and shared by all parts of the reconciler.

A cluster has its own connection pool, rate limit and failures; nothing here waits for another cluster.
"""

from __future__ import annotations

import asyncio

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import Unreachable
from pilothouse_server.tasks import cancel_and_wait

# What is under way with a client that is replaced may end: longer than a request may take.
RETIRED_SECONDS = 30.0


class ClusterClients:
    """Clients by cluster name. `connect` makes one; it raises ClusterError where that cannot be done from here."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._clients: dict[str, asyncio.Task[ClusterClient]] = {}
        self._retired: dict[asyncio.Task[None], asyncio.Task[ClusterClient]] = {}
        self._closed = False

    async def client(self, name: str) -> ClusterClient:
        """Returns the client of a cluster. Raises ClusterError; a failure is not remembered."""
        while not self._closed:
            task = self._clients.get(name)
            if task is None:
                task = self._clients[name] = asyncio.ensure_future(self._connect(name))
            # One caller's cancellation must not take the client away from the others.
            if not task.done():
                await asyncio.wait([task])
            if (task.cancelled() or task.exception() is not None) and self._clients.get(name) is task:
                del self._clients[name]
            # Cancelled is one whose cluster was forgotten while it was connected to.
            if not task.cancelled():
                return task.result()
        raise Unreachable(f"cluster {name!r} is not connected to any more")

    def forget(self, name: str) -> None:
        """Connects anew from now on: the cluster's credentials changed, or it is deregistered."""
        task = self._clients.pop(name, None)
        if task is not None:
            retired = asyncio.create_task(_retire(task), name=f"retired client of {name}")
            self._retired[retired] = task
            retired.add_done_callback(self._retired.pop)

    async def close(self) -> None:
        """Closes all clients."""
        self._closed = True
        retired = dict(self._retired)
        tasks = [*self._clients.values(), *retired.values()]
        self._clients.clear()
        await cancel_and_wait(*retired)
        for task in tasks:
            await _close(task)


async def _retire(task: asyncio.Task[ClusterClient]) -> None:
    if task.done():
        await asyncio.sleep(RETIRED_SECONDS)
    await _close(task)


async def _close(task: asyncio.Task[ClusterClient]) -> None:
    await cancel_and_wait(task)
    if not task.cancelled() and task.exception() is None:
        await task.result().close()
