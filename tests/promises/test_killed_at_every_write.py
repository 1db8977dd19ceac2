"""Promise 8 for what is more than a container or a volume: namespaces, config maps, secrets, what is taken over.

Asked for through the API; a worker does it and is killed just after its write number 0, 1, 2 … to the cluster, and the
next one finishes. Then the cluster holds what it holds after an undisturbed run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.cluster.client import ClusterClient
from pilothouse_server.cluster.simulated.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    SERVICES,
)
from pilothouse_server.embedded.postgres import EmbeddedPostgres
from pilothouse_server.reconcile import reconcile_volume
from pilothouse_server.reconcile.clusters import Clusters
from pilothouse_server.reconcile.own_changes import OwnChanges
from pilothouse_server.reconcile.reconcile_config import ConfigNoun
from pilothouse_server.reconcile.worker import NOUNS, Worker, WorkerSettings
from tests.conftest import Database, new_database
from tests.harness import QUICK, Server, eventually, running_server
from tests.main_job.legacy import DEPLOYMENTS as LEGACY_DEPLOYMENTS
from tests.main_job.legacy import Kubectl
from tests.main_job.legacy_shop import furnished, shop

SPACE = "legacy"
# The server's own worker claims nothing: those of the test do.
IDLE = msgspec.structs.replace(QUICK, worker=WorkerSettings(workers_per_cluster=0))
SHORT = WorkerSettings(poll_seconds=0.02, lease_seconds=0.4)
_KINDS = (NAMESPACES, DEPLOYMENTS, SERVICES, CONFIG_MAPS, SECRETS, PERSISTENT_VOLUME_CLAIMS)
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Killed(BaseException):
    """The process is gone: nothing of ours runs after this."""


class DyingClient:
    """A client whose process is killed just after the cluster has done its write number `step`."""

    def __init__(self, client: ClusterClient, step: int) -> None:
        self._client = client
        self._left = step
        self.died = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in ("apply", "set_scale", "delete", "merge_patch"):
            return method

        async def write(*arguments: Any, **keywords: Any) -> Any:
            if self.died.is_set():
                raise Killed
            answer = await method(*arguments, **keywords)
            self._left -= 1
            if self._left < 0:
                self.died.set()
                raise Killed
            return answer

        return write


async def work(server: Server, client: Any, until: Callable[[], Awaitable[bool]]) -> None:
    """Lets one worker work until it has no more to do, or is killed."""

    async def connect(_: str) -> Any:
        return client

    envelopes = server.application.envelopes
    nouns = {
        **NOUNS,
        "config_map": ConfigNoun("config_map", envelopes),
        "secret": ConfigNoun("secret", envelopes),
        "volume": reconcile_volume,
    }
    worker = Worker(server.application.store, Clusters(connect), OwnChanges(), SHORT, nouns=nouns)
    running = asyncio.ensure_future(worker.run())
    try:
        await eventually(until, seconds=60, what="the worker's end")
    finally:
        running.cancel()
        await asyncio.wait([running])


async def nothing_is_due(server: Server) -> bool:
    """Rows stay with their resources, due again after a long time."""
    async with server.database.system() as sql:
        return not await sql.fetchval(
            "SELECT count(*) FROM reconcile_work WHERE due_at < clock_timestamp() + interval '60 seconds'"
        )


def on_cluster(server: Server) -> dict[str, str]:
    """What counts on the cluster, without what differs from run to run."""
    assert server.cluster is not None
    found = {}
    for resource in _KINDS:
        for each in server.cluster.store.list(resource, None if resource is NAMESPACES else SPACE):
            metadata = each["metadata"]
            if resource is NAMESPACES and metadata["name"] != SPACE:
                continue
            kept: dict[str, Any] = {
                key: each[key] for key in ("spec", "data", "type", "immutable") if key in each
            }
            for chosen in ("clusterIP", "clusterIPs", "volumeName", "volumeMode"):
                kept.get("spec", {}).pop(chosen, None)
            kept["labels"] = sorted(metadata.get("labels", {}).items())
            found[f"{resource.kind}/{metadata['name']}"] = _UID.sub("uid", msgspec.json.encode(kept).decode())
    return found


async def make_space(server: Server) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE, labels={"a": "1"}))


async def make_filled(server: Server) -> None:
    await make_space(server)
    config_map = config_pb2.ConfigMap(name="settings", data={"a": "1"})
    await server.admin.config.create_config_map(namespace=SPACE, config_map=config_map)
    secret = config_pb2.Secret(name="keys", string_data={"a": "1"})
    await server.admin.config.create_secret(namespace=SPACE, secret=secret)
    container = container_pb2.Container(
        name="web", image="nginx:1.27", ports=[container_pb2.Port(container_port=80)]
    )
    await server.admin.containers.create(namespace=SPACE, container=container)


async def make_legacy(server: Server) -> None:
    assert server.cluster is not None
    kubectl = Kubectl(server)
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    await kubectl.ask("POST", "/api/v1/namespaces", manifest)
    await furnished(kubectl)
    await kubectl.ask("POST", LEGACY_DEPLOYMENTS, shop())
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE), adopt=True)


async def nothing(_: Server) -> None:
    """From the beginning."""


async def label_space(server: Server) -> None:
    await server.admin.namespaces.update(
        name=SPACE,
        namespace=namespace_pb2.Namespace(labels={"b": "2"}),
        update_mask=FieldMask(paths=["labels"]),
    )


async def delete_space(server: Server) -> None:
    await server.admin.namespaces.delete(name=SPACE, cascade=True)


async def change_configs(server: Server) -> None:
    mask = FieldMask(paths=["labels"])
    await server.admin.config.update_config_map(
        namespace=SPACE, name="settings", config_map=config_pb2.ConfigMap(labels={"b": "2"}), update_mask=mask
    )
    await server.admin.config.update_secret(
        namespace=SPACE,
        name="keys",
        secret=config_pb2.Secret(string_data={"b": "2"}),
        update_mask=FieldMask(paths=["string_data"]),
    )


async def delete_configs(server: Server) -> None:
    await server.admin.config.delete_config_map(namespace=SPACE, name="settings")
    await server.admin.config.delete_secret(namespace=SPACE, name="keys")


async def take_over(server: Server) -> None:
    answer = await server.admin.containers.import_(namespace=SPACE)
    assert [result.container.name for result in answer.results] == ["shop"]


class Operation(NamedTuple):
    """`writes`: how many there are at least, so that the checker sees something."""

    before: Callable[[Server], Awaitable[None]]
    asked: Callable[[Server], Awaitable[None]]
    writes: int


OPERATIONS = {
    "create all": Operation(nothing, make_filled, 5),
    "update a namespace": Operation(make_space, label_space, 1),
    "delete a namespace": Operation(make_filled, delete_space, 3),
    "change configs": Operation(make_filled, change_configs, 2),
    "delete configs": Operation(make_filled, delete_configs, 2),
    "import": Operation(make_legacy, take_over, 5),
}


async def run(
    database: Database, directory: Path, operation: Operation, step: int, *, finished: bool = True
) -> tuple[bool, dict[str, str]]:
    """Whether the first worker was killed at that write, and what the cluster holds at the end."""
    async with running_server(database, directory, reconciler=IDLE) as server:
        assert server.cluster is not None
        client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name="local")
        try:

            async def done() -> bool:
                return await nothing_is_due(server)

            await operation.before(server)
            await work(server, client, done)
            await operation.asked(server)
            dying = DyingClient(client, step)

            async def over() -> bool:
                return dying.died.is_set() or await done()

            await work(server, dying, over)
            if finished:
                await work(server, client, done)
            return dying.died.is_set(), on_cluster(server)
        finally:
            await client.close()


@pytest.mark.parametrize("name", OPERATIONS)
async def test_the_next_worker_finishes(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path: Path, name: str
) -> None:
    operation = OPERATIONS[name]

    async def killed_at(step: int) -> tuple[bool, dict[str, str]]:
        async with new_database(postgres, template_database.name) as database:
            return await run(database, tmp_path / str(step), operation, step)

    died, undisturbed = await killed_at(1_000)
    assert not died
    step = 0
    while True:
        died, found = await killed_at(step)
        assert found == undisturbed, f"killed at write {step}"
        if not died:
            break
        step += 1
    assert step >= operation.writes


async def test_what_nobody_finishes_is_seen(database: Database, tmp_path: Path) -> None:
    died, found = await run(database, tmp_path, OPERATIONS["create all"], 1, finished=False)
    assert died
    assert "Deployment/web" not in found
