"""An apply continues with its next phase after the server is killed during a phase and at the start of the next."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.applications.conftest import deployment, given
from tests.applications.test_killed_rollback import SPACE, server, variables_of
from tests.applications.test_phases import Journal, in_order, job
from tests.conftest import Database, connection
from tests.waiting import poll_until

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_simulator import SimulatedCluster

pytestmark = pytest.mark.full(minutes=5)


async def test_the_next_server_continues_with_the_next_phase(database: Database, tmp_path: Path) -> None:
    async with SimulatedCluster(speed=10.0) as cluster:
        variables = variables_of(database, cluster, tmp_path)
        journal = Journal(cluster, SPACE)
        async with server(variables) as (client, process):
            await client.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE))
            documents = given([job(), deployment(), job("announce", hook="PostSync")])
            await client.applications.apply(namespace=SPACE, name=SPACE, documents=documents)
            await journal.has("Job/migrate added")
            process.send_signal(signal.SIGKILL)
            await process.kill()
        await journal.has("Job/migrate ended")
        assert await steps(database) == [("migrate", False), ("web", True), ("announce", True)]
        # The transaction that starts the next step blocks at the work row that it releases.
        async with database.owner() as sql, sql.transaction():
            await sql.execute(
                "SELECT FROM reconcile_work WHERE (resource_type, resource_id) IN "
                "(SELECT 'container', id FROM containers WHERE name = 'web') FOR UPDATE"
            )
            async with server(variables) as (client, process):

                async def blocked() -> bool:
                    # Inside a transaction, pg_stat_activity would be a snapshot taken at the first read.
                    async with connection(database.admin_dsn) as looking:
                        waiting: int = await looking.fetchval(
                            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                            " AND wait_event_type = 'Lock' AND usename LIKE '%system%'"
                        )
                    return waiting > 0

                await poll_until(blocked, seconds=20.0, what="the next step waits for the work of web")
                process.send_signal(signal.SIGKILL)
                await process.kill()
        assert await steps(database) == [("migrate", False), ("web", True), ("announce", True)]
        assert "Deployment/web added" not in journal.lines
        async with server(variables) as (client, _):

            async def healthy() -> bool:
                found = await client.applications.get(namespace=SPACE, name=SPACE)
                return found.status == pb.APPLICATION_STATUS_HEALTHY

            await poll_until(healthy, seconds=20.0, what="all phases have passed")
        order = journal.order("Job/migrate ended", "Deployment/web added", "Job/announce added")
        assert in_order(order), journal.lines
        assert await steps(database) == [("migrate", False), ("web", False), ("announce", False)]
        await journal.close()


async def steps(database: Database) -> list[tuple[str, bool]]:
    """Returns the members in the order of their steps, and whether work on each is held back."""
    async with database.system() as sql:
        rows = await sql.fetch(
            "SELECT m.name, w.held FROM application_members AS m JOIN containers AS c ON c.name = m.name"
            " JOIN reconcile_work AS w ON w.resource_type = 'container' AND w.resource_id = c.id"
            " ORDER BY m.step"
        )
        return [(row["name"], row["held"]) for row in rows]
