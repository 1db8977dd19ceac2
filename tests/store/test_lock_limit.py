"""A request waits for another one's lock for a limited time, and holds no lock beyond its transaction."""

from __future__ import annotations

from pathlib import Path

import pytest
from asyncpg import InsufficientPrivilegeError
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import PilothouseError, RetryPolicy
from pilothouse_server.store import engine
from tests.conftest import Database, connection
from tests.harness import running_server


async def test_a_request_waits_for_a_lock_for_a_limited_time(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LOCK_MILLISECONDS", 200)
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=pb.Namespace(name="shop"))
        async with connection(database.admin_dsn) as sql, sql.transaction():
            await sql.execute("SELECT FROM namespaces WHERE name = 'shop' FOR UPDATE")
            with pytest.raises(PilothouseError) as refused:
                await server.admin.with_options(retry=RetryPolicy(attempts=1)).namespaces.update(
                    name="shop",
                    namespace=pb.Namespace(description="changed"),
                    update_mask=FieldMask(paths=["description"]),
                )
        assert (refused.value.code.name, refused.value.reason) == ("ABORTED", "CONCURRENT_CHANGE")


@pytest.mark.parametrize("function", ["pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_lock_shared"])
async def test_the_roles_of_a_server_cannot_lock_beyond_a_transaction(
    database: Database, function: str
) -> None:
    for dsn in (database.app_dsn, database.system_dsn):
        async with connection(dsn) as sql:
            with pytest.raises(InsufficientPrivilegeError):
                await sql.fetchval(f"SELECT {function}(1)")
            await sql.fetchval("SELECT pg_advisory_xact_lock(1)")
    async with connection(database.maintenance_dsn) as sql:
        await sql.fetchval(f"SELECT {function}(1)")
