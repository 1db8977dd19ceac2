"""Audit records are found by every field that a record shows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.harness import Server, running_server
from tests.waiting import poll_until


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def logged(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """Yields a server whose audit log contains a change and two refusals."""
    folder = tmp_path_factory.mktemp("server")
    async with (
        new_database(postgres, template_database.name) as database,
        running_server(database, folder, with_cluster=False) as server,
    ):
        namespaces = server.admin.namespaces
        await namespaces.create(namespace=namespace_pb2.Namespace(name="kept"))
        with pytest.raises(PilothouseError):
            await namespaces.create(namespace=namespace_pb2.Namespace(name="kept"))
        with pytest.raises(PilothouseError):
            await namespaces.get(name="missing")
        yield server


async def found(server: Server, expression: str) -> list[tuple[str, str, str]]:
    """Returns action, name and code of the matching records of namespaces, oldest first."""
    expression = f'resource_type = "namespace" AND ({expression})'
    return [
        (each.action, each.resource_name, each.error_code)
        async for each in server.admin.audit.list_operations(filter=expression, order_by="sequence")
    ]


CREATED = ("create", "kept", "")
TWICE = ("create", "kept", "ALREADY_EXISTS")
MISSED = ("get", "missing", "NOT_FOUND")


@pytest.mark.parametrize(
    ("expression", "records"),
    [
        ("sequence > 0", [CREATED, TWICE, MISSED]),
        ("error_code = OK", [CREATED]),
        ('error_code = ""', [CREATED]),
        ("error_code != OK", [TWICE, MISSED]),
        ('error_code != ""', [TWICE, MISSED]),
        ("error_code = NOT_FOUND", [MISSED]),
        ("result = SUCCESS", [CREATED]),
        ("result = FAILURE", [TWICE, MISSED]),
        ("result != RESULT_FAILURE", [CREATED]),
        ('error_message = ""', [CREATED]),
        ('error_message:"missing"', [MISSED]),
        ("namespace = kept", [CREATED]),
        ('text : "CREATENAMESPACE"', [CREATED, TWICE]),
        ("text : missing", [MISSED]),
        ("text : 127.0.0.1 NOT text : already", [CREATED, MISSED]),
        ('client_ip = "127.0.0.1"', [CREATED, TWICE, MISSED]),
        ('namespace = ""', [TWICE, MISSED]),
        ("validate_only = true", []),
        ("validate_only = false", [CREATED, TWICE, MISSED]),
        ("end_time > 2026-01-01", [CREATED, TWICE, MISSED]),
        ("end_time < 2026-01-01", []),
        ("start_time < 2999-01-01", [CREATED, TWICE, MISSED]),
        ("start_time > 2999-01-01", []),
        ("duration_ms < 0", []),
        ("request_method = UNARY", [CREATED, TWICE, MISSED]),
        ("request_path = *GetNamespace", [MISSED]),
        ('client_ip = 127.0.0.1 OR client_ip = "::1"', [CREATED, TWICE, MISSED]),
        ("user_agent:pilothouse", [CREATED, TWICE, MISSED]),
    ],
)
async def test_filters_find_the_matching_records(
    logged: Server, expression: str, records: list[tuple[str, str, str]]
) -> None:
    await poll_until(lambda: found(logged, "sequence > 0"), lambda seen: len(seen) == 3)
    assert await found(logged, expression) == records


async def test_dry_runs_are_found(logged: Server) -> None:
    for name, tried in (("tried", True), ("made", False)):
        role = identity_pb2.Role(name=name, permissions=["container.get"])
        await logged.admin.identity.create_role(role=role, validate_only=tried)
    for value, names in (("true", ["tried"]), ("false", ["made"])):
        asked_for = f"resource_type = role AND username = admin AND validate_only = {value}"
        listed = logged.admin.audit.list_operations(filter=asked_for)
        assert [each.resource_name async for each in listed] == names
