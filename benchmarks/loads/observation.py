"""The product's first list of a cluster (list, decode, group by container), and how long its event loop is blocked.

The product's code runs in this process alone: the measured time ends when the product has all pods, not when it has
reported them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.child import answering
from benchmarks.held import Held
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import PODS
from pilothouse_server.kubernetes.ownership import MANAGED_SELECTOR
from pilothouse_server.reconcile.observe.cluster_view import ClusterView
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.runtime.process_tuning import collect_rarely
from pilothouse_server.runtime.tasks import cancel_and_wait


async def observe(kubeconfig: dict[str, Any]) -> list[float]:
    """Returns the seconds until all pods are known, their number, and the loop's longest delay in milliseconds."""
    client = await ClusterClient.from_kubeconfig(kubeconfig, name="measured", allow_files=False)
    failures: list[ClusterError] = []
    view = ClusterView(AppliedGenerations(), lambda: None)
    informer = Informer(client, PODS, MANAGED_SELECTOR, view.pod_changed, failures.append)
    held = Held()
    try:
        async with asyncio.timeout(60):
            ticking = asyncio.create_task(held.tick())
            began = time.perf_counter()
            running = asyncio.create_task(informer.run())
            await informer.synced.wait()
            taken = time.perf_counter() - began
            await cancel_and_wait(ticking, running)
        if failures:
            raise failures[0]
        return [taken, len(informer.objects), held.longest * 1000]
    finally:
        await client.close()


def main() -> None:
    """Runs the process."""
    collect_rarely()
    answering({"observe": observe})


if __name__ == "__main__":
    main()
