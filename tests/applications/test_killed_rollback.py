"""A failed revision is rolled back even if the client that applied it and the server that rolls back are killed."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
import yaml
from tests.applications.conftest import config_map, deployment, given, secret
from tests.applications.test_following import BEHAVIOR
from tests.conftest import Database, connection
from tests.harness import PASSWORD
from tests.main_job import loaded
from tests.readme.served import server_variables
from tests.waiting import poll_until, within

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.identity.v1 import identity_pb2, identity_pb2_grpc
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_simulator import SimulatedCluster

pytestmark = pytest.mark.full(minutes=5)

SPACE = "shop"


def documents(level: str, behavior: str) -> list[dict[str, object]]:
    made = deployment()
    made["spec"]["template"]["metadata"]["annotations"] = {BEHAVIOR: behavior}
    return [config_map(level=level), secret(word=level), made]


@asynccontextmanager
async def server(variables: dict[str, str]) -> AsyncIterator[tuple[AsyncClient, loaded.StartedCommand]]:
    with Path(variables["PILOTHOUSE_KUBECONFIG"]).with_name("server.log").open("ab") as errors:
        process = await loaded.start(["serve"], variables, errors=errors.fileno())
    try:
        async with within(60):
            said = (await process.stdout.readline()).decode()
        async with AsyncClient(said.split()[-1], username="admin", password=PASSWORD) as client:
            yield client, process
    finally:
        await process.kill()


def variables_of(database: Database, cluster: SimulatedCluster, folder: Path) -> dict[str, str]:
    """Returns the environment of a server that may be killed: the database and the cluster outlive it."""
    (folder / "kubeconfig.json").write_text(json.dumps(cluster.kubeconfig()))
    return {
        **server_variables(folder),
        "PILOTHOUSE_DATABASE_URL": database.app_dsn,
        "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
        "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
        "PILOTHOUSE_DATA_DIR": str(folder / "data"),
        "PILOTHOUSE_KUBECONFIG": str(folder / "kubeconfig.json"),
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
        "PILOTHOUSE_LISTEN": "127.0.0.1:0",
    }


async def test_the_next_server_completes_the_rollback(database: Database, tmp_path: Path) -> None:
    async with SimulatedCluster(speed=10.0) as cluster:
        variables = variables_of(database, cluster, tmp_path)
        async with server(variables) as (client, process), database.owner() as sql:
            await client.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE))
            first = given(documents("first", "run"))
            await client.applications.apply(namespace=SPACE, name=SPACE, documents=first)

            async def healthy() -> bool:
                found = await client.applications.get(namespace=SPACE, name=SPACE)
                return found.status == pb.APPLICATION_STATUS_HEALTHY

            await poll_until(healthy, seconds=20.0, what="the first revision is healthy")
            (tmp_path / "shop.yaml").write_text(yaml.safe_dump_all(documents("second", "readiness-failing")))
            applying = await loaded.start(
                ["apply", "-f", str(tmp_path / "shop.yaml"), "--application", SPACE, "--namespace", SPACE,
                 "--rollback-on-failure", "--progress-deadline", "3", "--wait"],
                {**variables, "PILOTHOUSE_SERVER": client.address, "PILOTHOUSE_TOKEN": await token(client)},
            )  # fmt: skip

            async def applied() -> bool:
                found = await client.applications.get(namespace=SPACE, name=SPACE)
                return found.revision == 2

            await poll_until(applied, what="the second revision")
            applying.send_signal(signal.SIGKILL)
            await applying.kill()
            # The rollback blocks at the container, after it has written the config map and the secret.
            async with sql.transaction():
                await sql.execute("SELECT FROM containers WHERE name = 'web' FOR UPDATE")

                async def blocked() -> bool:
                    # Inside a transaction, pg_stat_activity would be a snapshot taken at the first read.
                    async with connection(database.admin_dsn) as looking:
                        waiting: int = await looking.fetchval(
                            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                            " AND wait_event_type = 'Lock' AND usename LIKE '%app%'"
                        )
                    return waiting > 0

                await poll_until(blocked, seconds=20.0, what="the rollback waits for the container")
                process.send_signal(signal.SIGKILL)
                await process.kill()
            assert await revisions(database) == [(1, None, None), (2, None, None)]
        async with server(variables) as (client, _):

            async def rolled_back() -> bool:
                found = await client.applications.get(namespace=SPACE, name=SPACE)
                return found.revision == 3 and found.status == pb.APPLICATION_STATUS_HEALTHY

            await poll_until(rolled_back, seconds=20.0, what="the first revision is back and healthy")
            assert await revisions(database) == [(1, None, None), (2, None, None), (3, 1, 2)]
            level = await client.config.get_config_map(namespace=SPACE, name="settings")
            assert dict(level.data) == {"level": "first"}
            word = await client.config.reveal_secret(namespace=SPACE, name="password")
            assert dict(word.data) == {"word": b"first"}
            made = await client.applications.get_revision(namespace=SPACE, name=SPACE, revision=3)
            record = await client.audit.get_operation(operation_id=made.operation_id)
            assert (record.action, record.username) == ("rollback", "admin")


async def token(client: AsyncClient, username: str = "admin") -> str:
    async with grpc.aio.insecure_channel(client.address) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        answer = await stub.Login(identity_pb2.LoginRequest(username=username, password=PASSWORD))
        return str(answer.access_token)


async def revisions(database: Database) -> list[tuple[int, int | None, int | None]]:
    """Returns number and origin of each revision of the application, and the failed revision that it replaced."""
    async with database.system() as sql:
        rows = await sql.fetch(
            "SELECT number, origin, (document ->> 'failed_revision')::integer AS failed FROM revisions "
            "WHERE resource_type = 'application' ORDER BY number"
        )
        return [(row["number"], row["origin"], row["failed"]) for row in rows]
