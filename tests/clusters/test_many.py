"""Several clusters: each one fails, waits and recovers independently."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilothouse.namespace.v1 import namespace_pb2 as pb
from tests.clusters.given import QUICK, another_cluster, has_status, place, register, runs
from tests.conftest import Database
from tests.harness import running_server
from tests.waiting import poll_until

SLOW_SECONDS = 5.0
# More than the workers of one cluster, so that the slow cluster occupies all its workers.
MANY = 12


@pytest.mark.full
async def test_an_unreachable_and_a_slow_cluster_delay_no_other(database: Database, tmp_path: Path) -> None:
    async with (
        another_cluster() as quick,
        another_cluster() as slow,
        another_cluster() as away,
        running_server(database, tmp_path, with_cluster=False, reconciler=QUICK) as server,
    ):
        for name, cluster in (("quick", quick), ("slow", slow), ("away", away)):
            await register(server, name, cluster)
        await place(server, "away", "away-shop")
        before = await runs(server, "away-shop")
        assert not before.HasField("stale_since")
        away.faults.refuse_connections = True
        away.faults.drop_watches()
        slow.faults.latency_seconds = SLOW_SECONDS
        for number in range(MANY):
            for name in ("away", "slow"):
                await server.admin.namespaces.create(
                    namespace=pb.Namespace(name=f"{name}-{number}", cluster_name=name)
                )
        lost = await has_status(server, "away", pb.CLUSTER_STATUS_UNREACHABLE)
        assert lost.reason == "Unreachable"
        assert lost.HasField("stale_since")

        async def stale() -> bool:
            container = await server.admin.containers.get(namespace="away-shop", name="web")
            namespace = await server.admin.namespaces.get(name="away-shop")
            return container.HasField("stale_since") and namespace.HasField("stale_since")

        await poll_until(stale)
        # The quick cluster finishes before the slow one can create one container.
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(place(server, "slow", "slow-shop"))
            await place(server, "quick", "quick-shop")
            assert not waiting.done()
            slow.faults.latency_seconds = 0.0
        quick_seen = await server.admin.namespaces.get_cluster(name="quick")
        assert quick_seen.status == pb.CLUSTER_STATUS_HEALTHY
        assert not quick_seen.HasField("stale_since")

        away.faults.refuse_connections = False
        await has_status(server, "away", pb.CLUSTER_STATUS_HEALTHY)

        async def caught_up() -> bool:
            listed = [each async for each in server.admin.namespaces.list(filter='cluster_name = "away"')]
            return len(listed) == MANY + 1 and all(each.phase == "Active" for each in listed)

        await poll_until(caught_up, seconds=60.0)

        async def fresh() -> bool:
            return not (await runs(server, "away-shop")).HasField("stale_since")

        await poll_until(fresh)
