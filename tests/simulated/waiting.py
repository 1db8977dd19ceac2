"""Waiting for a condition of a simulated cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pilothouse_server.cluster.simulated import SimulatedCluster


async def until(cluster: SimulatedCluster, condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Returns as soon as the condition holds; looks after each change of the cluster. TimeoutError (real time)."""
    subscription = cluster.store.subscribe()
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await subscription.next_batch()
    finally:
        subscription.close()
