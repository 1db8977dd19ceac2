"""A read replica serves ListOperations and QueryUsage, and no other call."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.metrics.v1 import metrics_pb2 as metrics
from pilothouse.namespace.v1 import namespace_pb2 as namespaces
from pilothouse_migrations import roles
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.engine import Database as Engines
from tests.conftest import Database, connection, new_database
from tests.harness import Server, running_server
from tests.promises.environment import prepare, quiet_environment

_FROM_REPLICA = {"ListOperations", "QueryUsage"}
# Port 1 has no listener.
_AWAY = f"postgresql://{roles.APP}@127.0.0.1:1/none"


async def _add(server: Server, namespace: str) -> None:
    """Creates a namespace with a container and a sample of its usage."""
    await server.admin.namespaces.create(namespace=namespaces.Namespace(name=namespace))
    await server.admin.containers.create(
        namespace=namespace, container=containers.Container(name="web", image="nginx:1.27")
    )
    now = Timestamp()
    now.FromDatetime(datetime.now(UTC))
    sample = metrics.UsageSample(namespace=namespace, container="web", timestamp=now, cpu_cores_used=0.5)
    answer = await server.admin.metrics.record_usage([metrics.RecordUsageRequest(samples=[sample])])
    assert answer.accepted_count == 1


async def test_the_two_reads_return_the_content_of_the_replica(
    postgres: EmbeddedPostgres, database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await _add(server, "before")
    # A replica that has received nothing since it was copied.
    async with (
        new_database(postgres, database.name) as replica,
        running_server(
            database, tmp_path, with_cluster=False, replica_database_url=replica.app_dsn
        ) as server,
    ):
        await _add(server, "after")
        created = [
            operation.resource_name
            async for operation in server.admin.audit.list_operations(
                filter='action = "create" resource_type = "namespace"'
            )
        ]
        assert created == ["before"]
        used = [series.namespace async for series in server.admin.metrics.query_usage()]
        assert used == ["before"]
        listed = {namespace.name async for namespace in server.admin.namespaces.list()}
        assert listed == {"before", "after"}


@pytest.mark.full
async def test_no_other_call_needs_the_replica(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch, replica_database_url=_AWAY) as environment:
        await prepare(environment)
        # Methods that delete the resources of others come last.
        rules = sorted(environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace")
        outcomes = {
            rule.name: await environment.caller_of(rule).invoke(rule, environment.request(rule))
            for rule in rules
        }
    without = {name for name, outcome in outcomes.items() if outcome.reason == "DATABASE_UNAVAILABLE"}
    assert without == _FROM_REPLICA


async def test_a_login_for_all_roles_reads_the_replica_as_the_app_role(
    postgres: EmbeddedPostgres, database: Database
) -> None:
    """A login that is a member of every role sees every tenant's rows, until it assumes one role."""
    async with connection(postgres.dsn()) as admin:
        await admin.execute("CREATE ROLE every_role LOGIN")
        await admin.execute(f"GRANT {roles.APP}, {roles.SYSTEM}, {roles.MAINTENANCE} TO every_role")
        await admin.execute(f"GRANT CONNECT ON DATABASE {database.name} TO every_role")
        dsn = postgres.dsn(database.name, "every_role")
        engines = Engines.connect(Settings(database_url=dsn, replica_database_url=dsn))
        try:
            assert engines.replica is not None
            async with engines.replica.connect() as opened:
                assert (await opened.execute(text("SELECT current_user"))).scalar_one() == roles.APP
        finally:
            await engines.close()
            await admin.execute(f"REVOKE CONNECT ON DATABASE {database.name} FROM every_role")
            await admin.execute("DROP ROLE every_role")
