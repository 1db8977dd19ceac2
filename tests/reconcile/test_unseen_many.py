"""140 Deployments, of which 20 were changed or deleted while no server ran."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database
from tests.harness import running_server
from tests.reconcile.unseen import (
    LASTING,
    POLICIES,
    Others,
    agreeing,
    deployment,
    differences,
    populate,
    written,
)
from tests.waiting import patient

# One in seven is touched, so that each of the policies is among the touched.
MANY, CHANGED, AT_ONCE = 140, 20, 25


@pytest.mark.full(minutes=10)
async def test_only_the_twenty_touched_of_140_deployments_are_written(
    database: Database, tmp_path: Path
) -> None:
    policies = list(POLICIES.values())
    async with SimulatedCluster(speed=10.0) as cluster:
        others = Others(cluster)
        # Callers, server and cluster share one event loop: a request may arrive late on a busy machine.
        seconds = patient(10.0)
        async with running_server(
            database, tmp_path, cluster=cluster, reconciler=LASTING, request_seconds=seconds
        ) as server:
            await populate(server)
            free = asyncio.Semaphore(AT_ONCE)

            async def make(number: int) -> None:
                policy = policies[number % len(policies)]
                container = pb.Container(name=f"web-{number}", image="nginx:1.27", drift_policy=policy)
                async with free:
                    await server.admin.containers.create(namespace="shop", container=container)

            await asyncio.gather(*(make(number) for number in range(MANY)))
            await agreeing(server, seconds=120.0)
        touched = {f"web-{number}" for number in range(0, MANY, MANY // CHANGED)}
        for name in sorted(touched):
            if int(name.partition("-")[2]) % 2 == 0:
                await others.delete(deployment(name))
            else:
                await others.image(name)
        with written(cluster) as writes:
            async with running_server(database, tmp_path, cluster=cluster, reconciler=LASTING) as server:
                assert len(await differences(server)) >= CHANGED
                await agreeing(server, seconds=120.0)
        names = {each.rpartition("/")[2].partition("?")[0] for each in writes if "/deployments/" in each}
        assert names <= touched
