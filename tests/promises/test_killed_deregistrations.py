"""Promise 8 for the steps of a deregistration without a write to the cluster.

Released objects stay, whether a worker is killed or not. The deregistration that deletes objects is part of the
table (`killed_operations`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.clusters.operations import deregistration
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.store.unit_of_work import Store
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    SERVICES,
)
from tests.conftest import Database, new_database
from tests.harness import Server, running_server
from tests.promises.killed_operations import deregister, is_forgotten, let_go, make_registered
from tests.promises.killing import (
    AGREED_SECONDS,
    REGISTERED,
    SPACE,
    Operation,
    nothing_is_due,
    platform,
    run,
    settled,
    work,
)
from tests.waiting import poll_until

pytestmark = pytest.mark.full(minutes=10)

_KINDS = (DEPLOYMENTS, SERVICES, CONFIG_MAPS, SECRETS, PERSISTENT_VOLUME_CLAIMS)
MAKING = Operation((), make_registered, 6, registered=True)
DELETING = Operation((make_registered,), deregister, 6, registered=True)


def staying(server: Server) -> set[str]:
    """Returns the namespace's objects that are not being deleted."""
    assert server.cluster is not None
    store = server.cluster.store
    home = store.get(NAMESPACES, None, SPACE)
    if home is None or "deletionTimestamp" in home["metadata"]:
        return set()
    return {f"Namespace/{SPACE}"} | {
        f"{kind.kind}/{each['metadata']['name']}"
        for kind in _KINDS
        for each in store.list(kind, SPACE)
        if "deletionTimestamp" not in each["metadata"]
    }


@pytest.mark.parametrize("operation", [MAKING, DELETING], ids=["while it is made", "while it is deleted"])
async def test_objects_released_after_a_kill_stay_unchanged(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path: Path, operation: Operation
) -> None:
    step = 0
    while True:
        stayed: set[str] = set()

        async def leave(server: Server, stayed: set[str] = stayed) -> None:
            stayed |= staying(server)
            await let_go(server)

        async with new_database(postgres, template_database.name) as database:
            directory = tmp_path / str(step)
            died, _, found = await run(
                database, directory, operation, step, ends=nothing_is_due, between=leave
            )
        if not died:
            break
        assert stayed <= found.cluster.keys(), f"killed at write {step}"
        assert is_forgotten(found), f"killed at write {step}: {found.database}"
        # The checker sees something.
        assert stayed or step
        step += 1
    assert step >= operation.writes


async def end_nothing(_: Store) -> None:
    """Simulates a server that stops before it sees the last namespace deleted."""


async def shown(server: Server) -> list[str]:
    found = [each async for each in server.admin.namespaces.list_clusters()]
    return [each.name for each in found if each.status == pb.CLUSTER_STATUS_DEREGISTERING]


async def test_the_next_server_ends_a_deregistration_without_namespaces(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(deregistration, "finish", end_nothing)
        async with platform(database, tmp_path / "first", registered=True) as server:
            assert server.cluster is not None
            client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name=REGISTERED)
            try:
                await make_registered(server)
                await work(server, client, lambda: settled(server))
                await deregister(server)
                await work(server, client, lambda: nothing_is_due(server))
            finally:
                await client.close()
            assert not [each async for each in server.admin.namespaces.list()]
            # The first server has not ended the deregistration, so the next server must.
            assert await shown(server) == [REGISTERED]
    # The directory also has the first server's key, which encrypted the cluster's credentials.
    async with running_server(database, tmp_path / "first", with_cluster=False) as server:

        async def ended() -> bool:
            return [each.name async for each in server.admin.namespaces.list_clusters()] == ["local"]

        await poll_until(ended, seconds=AGREED_SECONDS, what="the end of the cluster")
