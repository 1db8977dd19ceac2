"""Two servers, one without credentials for a cluster.

The other one leads the cluster and does its work.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import AsyncClient
from pilothouse_server.app import Application
from tests.clusters.given import QUICK, another_cluster, place
from tests.conftest import Database
from tests.harness import PASSWORD, running_server, settings_for
from tests.waiting import poll_until

pytestmark = pytest.mark.full
SOON = msgspec.structs.replace(QUICK, free_seconds=1.0)


async def test_a_replica_without_a_kubeconfig_leaves_the_cluster_to_the_other(
    database: Database, tmp_path: Path
) -> None:
    async with another_cluster() as cluster:
        async with running_server(database, tmp_path, cluster=cluster, reconciler=SOON) as first:
            await place(first, "local", "shop")
        without = Application(settings_for(database, tmp_path), {}, reconciler=SOON)
        try:
            address = f"127.0.0.1:{await without.start()}"
            async with AsyncClient(address, username="admin", password=PASSWORD) as admin:

                async def local() -> pb.Cluster:
                    return await admin.namespaces.get_cluster(name="local")

                away = await poll_until(local, lambda found: found.status == pb.CLUSTER_STATUS_UNAUTHORIZED)
                assert "has no credentials" in away.message
                async with running_server(database, tmp_path, cluster=cluster, reconciler=SOON):
                    await poll_until(
                        local, lambda found: found.status == pb.CLUSTER_STATUS_HEALTHY and found.leader
                    )
                    # The request arrives at this server, and the other one executes it.
                    late = containers.Container(name="late", image="nginx:1.27")
                    await admin.containers.create(namespace="shop", container=late)
                    await poll_until(
                        lambda: admin.containers.get(namespace="shop", name="late"),
                        lambda found: found.status == containers.CONTAINER_STATUS_RUNNING,
                    )
                    assert (await local()).leader
        finally:
            await without.stop()
