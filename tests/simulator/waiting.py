"""Waiting for a condition of a simulated cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pilothouse_simulator import SimulatedCluster
from tests.waiting import poll_until

T = TypeVar("T")


async def poll_cluster(cluster: SimulatedCluster, look: Callable[[], T], *, seconds: float = 10.0) -> T:
    """What `look` first returns that is true. It looks after each change of the cluster, so that it sees states that
    last for a moment, and now and then for what follows from a change without another one.
    """

    async def seen() -> T:
        return look()

    subscription = cluster.store.subscribe()
    try:
        return await poll_until(seen, seconds=seconds, woken_by=subscription.next_batch)
    finally:
        subscription.close()
