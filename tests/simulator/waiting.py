"""Waiting for a condition of a simulated cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from pilothouse_simulator import SimulatedCluster

_LOOK_SECONDS = 0.02


async def until(cluster: SimulatedCluster, condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Returns as soon as the condition holds. TimeoutError when it does not come true in so many real seconds.

    Looks after each change of the cluster, and now and then for what follows from a change without another one.
    """
    subscription = cluster.store.subscribe()
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                with suppress(TimeoutError):
                    await asyncio.wait_for(subscription.next_batch(), _LOOK_SECONDS)
    finally:
        subscription.close()
