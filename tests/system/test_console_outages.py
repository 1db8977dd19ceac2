"""The console after a server was killed, and after a session or a right has ended."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import asyncpg
import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database
from tests.gateway.browser import port_of
from tests.harness import PASSWORD
from tests.promises.test_killed_server import killed_at_the_end
from tests.readme.served import server_variables
from tests.system.console import Console, served, tab
from tests.waiting import poll_until

pytestmark = pytest.mark.system

_ROWS = "[...document.querySelectorAll('tbody tr')].map(row => [...row.cells].slice(1, 4).map(each => each.innerText))"
_STORED = "SELECT name, status, ready_replicas, replicas FROM containers ORDER BY name"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def _make(client: AsyncClient, first: int, last: int) -> None:
    async def one(number: int) -> None:
        await client.containers.create(
            namespace="demo", container=pb.Container(name=f"web-{number}", image="nginx:1.27")
        )

    await asyncio.gather(*map(one, range(first, last)))


async def _is_as_stored(console: Console, database: Database, count: int) -> None:
    """Waits until the table has the rows of the database, and all containers run."""
    connection = await asyncpg.connect(database.admin_dsn)
    try:

        async def both() -> tuple[list[list[str]], list[list[str]]]:
            stored = [
                [row["name"], row["status"].capitalize(), f"{row['ready_replicas']}/{row['replicas']}"]
                for row in await connection.fetch(_STORED)
            ]
            return sorted(await console.page.evaluate(_ROWS)), sorted(stored)

        def settled(found: tuple[list[list[str]], list[list[str]]]) -> bool:
            shown, stored = found
            return shown == stored and [row[1] for row in shown] == ["Running"] * count

        await poll_until(both, settled)
    finally:
        await connection.close()


async def test_a_table_equals_the_database_after_the_server_was_killed(
    database: Database, tmp_path: Path
) -> None:
    port = _free_port()
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
            "PILOTHOUSE_HTTP_LISTEN": f"127.0.0.1:{port}",
        }
        async with tab(port) as console:
            async with killed_at_the_end(variables) as client:
                await client.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
                await _make(client, 0, 4)
                await console.log_in()
                await console.open("containers")
                await _is_as_stored(console, database, 4)
                # The server is killed while these containers start.
                await _make(client, 4, 12)
            await console.sees("Not up to date")
            async with killed_at_the_end(variables) as client:
                await client.containers.delete(namespace="demo", name="web-0")
                await _make(client, 12, 14)
                await _is_as_stored(console, database, 13)
                assert await console.page.get_by_text("Not up to date").count() == 0


async def test_an_expired_session_shows_the_log_in(database: Database, tmp_path: Path) -> None:
    async with (
        served(database, tmp_path, with_cluster=False, console_max_age_seconds=3) as server,
        tab(port_of(server)) as console,
    ):
        await console.begin_log_in()
        await console.sees("Your session has ended")
        assert await console.page.locator("input[name=username]").count() == 1


async def test_a_namespace_whose_access_is_revoked_leaves_the_table(
    database: Database, tmp_path: Path
) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        for name in ("kept", "lost"):
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
            await server.admin.containers.create(
                namespace=name, container=pb.Container(name=f"web-{name}", image="nginx:1.27")
            )
        await server.user("vera", {"kept": "viewer", "lost": "viewer"})
        await console.log_in("vera")
        await console.open("containers")
        await console.page.get_by_role("link", name="web-lost").wait_for()
        await server.admin.identity.revoke_role(username="vera", role="viewer", namespace="lost")
        await console.page.get_by_role("link", name="web-lost").wait_for(state="detached")
        await console.page.get_by_role("link", name="web-kept").wait_for()
        # Without any right, the list itself is refused.
        await server.admin.identity.revoke_role(username="vera", role="viewer", namespace="kept")
        await console.page.get_by_role("link", name="web-kept").wait_for(state="detached")
        assert await console.page.locator("tbody tr").count() == 0
