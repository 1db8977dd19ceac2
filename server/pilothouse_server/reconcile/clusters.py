"""The clients of the clusters, one each, made when first needed and shared by all parts of the reconciler.

A cluster has its own connection pool, rate limit and failures; nothing here waits for another cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pilothouse_server.cluster.client import ClusterClient
from pilothouse_server.cluster.errors import Unreachable

Connect = Callable[[str], Awaitable[ClusterClient]]


class Clusters:
    """Clients by cluster name. `connect` makes one; it raises ClusterError where that cannot be done from here."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._clients: dict[str, asyncio.Task[ClusterClient]] = {}

    async def client(self, name: str) -> ClusterClient:
        """The client of a cluster. Raises ClusterError; a failure is not remembered."""
        task = self._clients.get(name)
        if task is None:
            task = self._clients[name] = asyncio.ensure_future(self._connect(name))
        try:
            # One caller's cancellation must not take the client away from the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and current is not None and not current.cancelling():
                # It is not the caller who was cancelled: the cluster was forgotten while it was connected to.
                raise Unreachable(f"cluster {name!r} is being connected to anew") from None
            raise
        except Exception:
            if self._clients.get(name) is task:
                del self._clients[name]
            raise

    async def forget(self, name: str) -> None:
        """Close a cluster's client: its credentials changed, or it is deregistered."""
        task = self._clients.pop(name, None)
        if task is not None:
            await _close(task)

    async def close(self) -> None:
        """Close all clients."""
        tasks = list(self._clients.values())
        self._clients.clear()
        for task in tasks:
            await _close(task)


async def _close(task: asyncio.Task[ClusterClient]) -> None:
    if not task.done():
        task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, ClusterClient):
        await result.close()
