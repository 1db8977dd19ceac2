"""Promise 8 with the default settings: a killed server leaves no work behind.

tests/reconcile/test_kills.py kills at every write. Here a whole process is killed, at arbitrary moments, and
the next server finishes the work in time.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import AsyncClient
from pilothouse_server.reconcile.queue.leadership import LEASE_SECONDS
from pilothouse_server.reconcile.queue.worker import WorkerSettings
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import CONFIG_MAPS, CRON_JOBS, DEPLOYMENTS, JOBS, SECRETS, SERVICES
from tests.conftest import Database
from tests.harness import PASSWORD
from tests.main_job import loaded
from tests.readme.served import server_variables
from tests.waiting import poll_until, within

CONTAINERS = 6
PROMISED_SECONDS = 10.0
# The status of a suspended CronJob with a run that continues.
_SUSPENDED = pb.CONTAINER_STATUS_STOPPED, 1
# Names of objects by kind.
Names = dict[str, set[str]]
_WEB = {f"web-{number}" for number in range(CONTAINERS)}
AS_ASKED_FOR: Names = {
    "Deployment": _WEB,
    "Service": _WEB,
    "ConfigMap": {"settings"},
    "Secret": {"keys"},
    "CronJob": {"nightly"},
    "Job": {"nightly-run-1"},
}


@asynccontextmanager
async def killed_at_the_end(variables: dict[str, str]) -> AsyncIterator[AsyncClient]:
    """Yields a client of a server process that is killed with SIGKILL at the end."""
    with Path(variables["PILOTHOUSE_KUBECONFIG"]).with_name("server.log").open("ab") as errors:
        process = await loaded.start(["serve"], variables, errors=errors.fileno())
    try:
        async with within(60):
            said = (await process.stdout.readline()).decode()
        client = AsyncClient(said.split()[-1], username="admin", password=PASSWORD)
        try:
            yield client
            process.send_signal(signal.SIGKILL)
        finally:
            await client.close()
    finally:
        await process.kill()


async def ask_for_much(client: AsyncClient, space: str) -> None:
    await client.namespaces.create(namespace=namespace_pb2.Namespace(name=space))
    config_map = config_pb2.ConfigMap(name="settings", data={"a": "b"})
    await client.config.create_config_map(namespace=space, config_map=config_map)
    secret = config_pb2.Secret(name="keys", string_data={"a": "b"})
    await client.config.create_secret(namespace=space, secret=secret)
    claim = storage_pb2.Volume(
        name="data",
        type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
        size="1Gi",
        access_mode=storage_pb2.ACCESS_MODE_READ_WRITE_ONCE,
    )
    await client.storage.create_volume(namespace=space, volume=claim)
    schedule = pb.CronJobSettings(schedule="0 0 1 1 *", concurrency="Forbid")
    nightly = pb.Container(name="nightly", image="nginx:1.27", cron_job=schedule)
    await client.containers.create(namespace=space, container=nightly)
    await client.containers.run(namespace=space, name="nightly")
    await client.containers.stop(namespace=space, name="nightly")
    await asyncio.gather(
        *(
            client.containers.create(
                namespace=space,
                container=pb.Container(
                    name=f"web-{number}", image="nginx:1.27", replicas=2, ports=[pb.Port(container_port=80)]
                ),
            )
            for number in range(CONTAINERS)
        )
    )


async def outstanding(client: AsyncClient, space: str) -> list[str]:
    """Returns the objects that do not have their requested state."""
    found = [
        each.name
        async for each in client.containers.list(namespace=space)
        if each.reconciling
        or (each.status, each.ready_replicas)
        != (_SUSPENDED if each.name == "nightly" else (pb.CONTAINER_STATUS_RUNNING, 2))
    ]
    found += [each.name async for each in client.config.list_secrets(namespace=space) if each.reconciling]
    found += [each.name async for each in client.config.list_config_maps(namespace=space) if each.reconciling]
    found += [each.name async for each in client.storage.list_volumes(namespace=space) if each.reconciling]
    return found


async def reached(client: AsyncClient, finished: int) -> bool:
    """Returns whether at least `finished` containers are done.

    The server is killed while others are not done.
    """
    left = await outstanding(client, "shop")
    return CONTAINERS - len([name for name in left if name.startswith("web-")]) >= finished


def on_cluster(cluster: SimulatedCluster, space: str) -> Names:
    def names(resource: Any) -> set[str]:
        return {
            each["metadata"]["name"]
            for each in cluster.store.list(resource, space)
            if each["metadata"]["name"] != "kube-root-ca.crt"
        }

    kinds = (DEPLOYMENTS, SERVICES, CONFIG_MAPS, SECRETS, CRON_JOBS, JOBS)
    return {each.kind: names(each) for each in kinds}


def test_the_default_leases_leave_time_for_the_work() -> None:
    assert WorkerSettings().lease_seconds <= PROMISED_SECONDS / 2
    assert LEASE_SECONDS <= PROMISED_SECONDS / 2


@pytest.mark.full(minutes=10)
@pytest.mark.parametrize("finished", [5])
async def test_the_next_server_finishes_requested_work(
    database: Database, tmp_path: Path, finished: int
) -> None:
    assert await killed_and_followed(database, tmp_path, finished) == AS_ASKED_FOR


@pytest.mark.soak(part="kills")
@pytest.mark.parametrize("finished", [*range(CONTAINERS)] * 5)
async def test_killed_again_and_again(database: Database, tmp_path: Path, finished: int) -> None:
    """Kills a server at different moments."""
    assert await killed_and_followed(database, tmp_path, finished) == AS_ASKED_FOR


async def killed_and_followed(database: Database, tmp_path: Path, finished: int) -> Names:
    """Kills a server when `finished` containers are done.

    Returns the cluster's objects once the next server has finished all work.
    """
    async with SimulatedCluster(speed=10.0) as cluster:
        kubeconfig = tmp_path / "kubeconfig.json"
        kubeconfig.write_text(json.dumps(cluster.kubeconfig()))
        variables = {
            **server_variables(tmp_path),
            "PILOTHOUSE_DATABASE_URL": database.app_dsn,
            "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
            "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
            "PILOTHOUSE_DATA_DIR": str(tmp_path / "data"),
            "PILOTHOUSE_KUBECONFIG": str(kubeconfig),
            "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
            "PILOTHOUSE_LISTEN": "127.0.0.1:0",
        }
        async with killed_at_the_end(variables) as client:
            await ask_for_much(client, "shop")
            await poll_until(lambda: reached(client, finished))
        async with killed_at_the_end(variables) as client:

            async def left() -> list[str]:
                return await outstanding(client, "shop")

            await poll_until(left, [].__eq__, seconds=PROMISED_SECONDS, what="everything as asked for")
        return on_cluster(cluster, "shop")
