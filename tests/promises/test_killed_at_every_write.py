"""Promise 8: a server is killed after any write of an operation to the cluster.

The next server finishes the operation. The operation is requested through the API, and its result is observed
on the cluster and through the API. The operations that write in most ways run for every change (`full`), the
others in the soak; `tests/reconcile/test_kills.py` has all of them in one process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, SERVICES
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.reconcile.apply import container_actions
from pilothouse_server.reconcile.apply.container_actions import ContainerProgress
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from tests.conftest import Database, new_database
from tests.harness import Server
from tests.promises.killed_operations import OPERATIONS, make_filled
from tests.promises.killing import SPACE, Operation, at_rest, differences, kills, nothing_is_due, run

_OF_EVERY_CHANGE = {
    "create all",
    "delete a namespace",
    "change configs and restart",
    "change objects",
    "import",
    "hold a rollout",
    "adopt drift",
    "deregister, deleting",
}


def _tier(name: str) -> pytest.MarkDecorator:
    return pytest.mark.full(minutes=10) if name in _OF_EVERY_CHANGE else pytest.mark.soak(part="kills")


@pytest.mark.parametrize("name", [pytest.param(name, marks=_tier(name)) for name in OPERATIONS])
async def test_the_next_worker_finishes_the_operation(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path: Path, name: str
) -> None:
    operation, killed = OPERATIONS[name], 0
    async for step, found, undisturbed in kills(postgres, template_database.name, tmp_path, operation):
        assert found == undisturbed, f"killed at write {step}: {differences(found, undisturbed)}"
        killed += 1
    assert killed >= operation.writes


async def lose_leased_work(server: Server) -> None:
    """Deletes leased work, as if leasing removed it from the queue."""
    async with server.database.owner() as sql:
        await sql.execute("DELETE FROM reconcile_work WHERE lease_epoch > 0")


async def found_otherwise(
    postgres: EmbeddedPostgres, template: str, directory: Path, operation: Operation, step: int, **broken: Any
) -> list[str]:
    """Returns the checker's findings for a kill after which no worker finishes."""
    async with new_database(postgres, template) as database:
        undisturbed = await run(database, directory / "undisturbed", operation, 1_000, ends=at_rest())
    async with new_database(postgres, template) as database:
        ran = await run(database, directory, operation, step, ends=nothing_is_due, **broken)
    assert ran.died
    return differences(ran.seen, undisturbed.seen).splitlines()


@pytest.mark.full(minutes=10)
async def test_an_operation_that_no_worker_finishes_is_found(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path: Path
) -> None:
    operation = OPERATIONS["create all"]
    found = await found_otherwise(
        postgres, template_database.name, tmp_path, operation, 1, between=lose_leased_work
    )
    assert any(each.startswith("cluster: Deployment/web is None") for each in found)


@pytest.mark.full(minutes=10)
async def test_a_result_that_is_not_stored_is_found(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path: Path
) -> None:
    operation = OPERATIONS["update a namespace"]
    found = await found_otherwise(
        postgres, template_database.name, tmp_path, operation, 0, between=lose_leased_work
    )
    assert any(each.startswith(f"database: namespace/{SPACE} ") for each in found)
    assert not any(each.startswith("cluster:") for each in found)


@pytest.mark.full(minutes=10)
async def test_an_orphan_is_found(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgetful(client: LeasedClient, container: Container, **_: Any) -> ContainerProgress:
        """Deletes a container in steps that cannot be repeated.

        If the Deployment is being deleted already, the Services count as deleted too.
        """
        where = (container.kubernetes_namespace, container.kubernetes_name)
        deployment = await client.find(DEPLOYMENTS, *where)
        if deployment is None or deployment.metadata.deletion_timestamp is not None:
            return ContainerProgress(gone=True)
        home = container.namespace_ref
        await client.delete(DEPLOYMENTS, home, where[1], uid=deployment.metadata.uid)
        for service in await client.list(SERVICES, where[0], ""):
            await client.delete(SERVICES, home, service.metadata.name, uid=service.metadata.uid)
        return ContainerProgress(workload=deployment, again_seconds=0.1)

    async def delete(server: Server) -> None:
        await server.admin.containers.delete(namespace=SPACE, name="web")

    monkeypatch.setattr(container_actions, "delete", forgetful)
    operation = Operation((make_filled,), delete, 2)
    found = await found_otherwise(postgres, template_database.name, tmp_path, operation, 0)
    assert any(each.startswith("cluster: Service/web is {") for each in found)
