"""`pilothouse audit` for a person and for a program."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.main_job.command import logged_in


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    """Yields a server whose audit log contains a change, a refusal and a dry run."""
    async with running_server(database, tmp_path) as running:
        namespaces = running.admin.namespaces
        quota = namespace_pb2.ResourceQuota(containers=7)
        await namespaces.create(namespace=namespace_pb2.Namespace(name="kept", resource_quota=quota))
        with pytest.raises(PilothouseError):
            await namespaces.create(namespace=namespace_pb2.Namespace(name="kept"))
        await namespaces.create(namespace=namespace_pb2.Namespace(name="tried"), validate_only=True)
        yield running


@pytest.mark.full
async def test_records_are_listed_by_options_and_shown_in_full(server: Server, tmp_path: Path) -> None:
    shell = await logged_in(server, tmp_path)

    async def names(*options: str) -> list[tuple[str, str]]:
        records = await shell.read("audit", "list", "--type", "namespace", "--action", "create", *options)
        return [(record["resource_name"], record["error_code"]) for record in records]

    everything = [("tried", ""), ("kept", "ALREADY_EXISTS"), ("kept", "")]
    assert await names() == everything
    assert await names("--user", "admin", "--since", "1h") == everything
    assert await names("--user", "nobody") == []
    assert await names("--until", "2020-01-01T00:00:00Z") == []
    assert await names("--failed") == [("kept", "ALREADY_EXISTS")]
    assert await names("--dry-run") == [("tried", "")]
    either = 'resource_name = "tried" OR error_code = ALREADY_EXISTS'
    assert await names("--filter", either, "--failed") == [("kept", "ALREADY_EXISTS")]

    table = await shell.succeed("audit", "list", "--type", "namespace", "--action", "create", "-o", "wide")
    (made,) = await shell.read("audit", "list", "--filter", 'resource_name = "kept" AND error_code = OK')
    assert made["operation_id"] in table
    shown = await shell.read("audit", "get", made["operation_id"])
    assert shown["request_body"]["namespace"]["resource_quota"]["containers"] == 7
    assert isinstance(shown["sequence"], int)
    assert isinstance(shown["metadata"]["grant"]["id"], int)
    assert list(shown["metadata"]) == sorted(shown["metadata"])
    as_yaml = await shell.succeed("audit", "get", made["operation_id"])
    assert "containers: 7\n" in as_yaml
