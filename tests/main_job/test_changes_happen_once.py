"""A change of a container with a `request_id` happens once, and uses no right that its caller loses in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_server.store.draft import Draft
from tests.conftest import Database, connection, number_changes
from tests.harness import Server, running_server
from tests.main_job.test_created_at_once import Meanwhile, by_sql

_NAMED: dict[str, Any] = {"namespace": "shop", "name": "web"}


async def prepare(server: Server, namespace: str = "shop") -> None:
    """Makes a namespace with a secret and a container that does not read it."""
    admin = server.admin
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
    await admin.config.create_secret(namespace=namespace, secret=config_pb2.Secret(name="login"))
    container = container_pb2.Container(name="web", image="nginx:1.27")
    await admin.containers.create(namespace=namespace, container=container)


async def counts(database: Database) -> tuple[int, int, int]:
    """Returns the container's generation, and the numbers of its audit records and events since its creation."""
    async with connection(database.admin_dsn) as sql:
        await number_changes(sql)
        row = await sql.fetchrow("""
            SELECT (SELECT generation FROM containers),
                (SELECT count(*) FROM operation_logs
                 WHERE request_path LIKE '%/RestartContainer' AND error_code IS NULL),
                (SELECT count(*) FROM events WHERE resource_type = 'container' AND kind = 'modified'
                 AND operation_id IN (SELECT operation_id FROM operations WHERE method LIKE '%/RestartContainer'))
            """)
    return tuple(row)


async def outcome(call: Awaitable[object]) -> str:
    try:
        await call
    except PilothouseError as error:
        return error.reason
    return "changed"


async def test_two_servers_execute_a_request_id_once(database: Database, tmp_path: Path) -> None:
    async with (
        running_server(database, tmp_path, with_cluster=False) as one,
        running_server(database, tmp_path, with_cluster=False) as two,
    ):
        await prepare(one)
        request = str(uuid4())
        changed = await asyncio.gather(
            *(server.admin.containers.restart(**_NAMED, request_id=request) for server in (one, two) * 10)
        )
        assert {item.generation for item in changed} == {2}
        # Each replay has its own audit record.
        assert await counts(database) == (2, 20, 1)


@pytest.mark.parametrize("written", [False, True])
async def test_a_change_of_a_lost_caller_happens_once_when_it_is_repeated(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    """The call is cancelled between the read and the write, and after the write but before the response."""
    reached, goes_on = asyncio.Event(), asyncio.Event()
    send = Draft._send

    async def held(draft: Draft, statement: Any, parameters: Mapping[str, Any]) -> None:
        if written:
            await send(draft, statement, parameters)
        reached.set()
        await goes_on.wait()
        if not written:
            await send(draft, statement, parameters)

    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        request = str(uuid4())
        with monkeypatch.context() as patched:
            patched.setattr(Draft, "_send", held)
            call = asyncio.ensure_future(server.admin.containers.restart(**_NAMED, request_id=request))
            await reached.wait()
        call.cancel()
        await asyncio.wait([call])
        goes_on.set()
        repeated = await server.admin.containers.restart(**_NAMED, request_id=request)
        assert repeated.generation == 2
        generation, _, events = await counts(database)
        assert (generation, events) == (2, 1)
        # The lock of the cancelled change is released, so another change succeeds.
        assert (await server.admin.containers.restart(**_NAMED)).generation == 3


def update(client: AsyncClient, namespace: str = "shop") -> Awaitable[object]:
    """Returns an update after which the container reads the secret."""
    wanted = container_pb2.Container(
        env=[
            container_pb2.EnvVar(
                name="A",
                value_from=container_pb2.ENV_VALUE_FROM_SECRET,
                source_name="login",
                source_key="a",
            )
        ]
    )
    return client.containers.update(
        namespace=namespace, name="web", container=wanted, update_mask=FieldMask(paths=["env"])
    )


_CALLS: Mapping[str, Callable[[AsyncClient, str], Awaitable[object]]] = {
    "update": update,
    "stop": lambda client, namespace: client.containers.stop(namespace=namespace, name="web"),
    "restart": lambda client, namespace: client.containers.restart(namespace=namespace, name="web"),
    "delete": lambda client, namespace: client.containers.delete(namespace=namespace, name="web"),
}


async def test_a_grant_revoked_before_the_write_prevents_the_change(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        for name, call in _CALLS.items():
            await prepare(server, name)
            user = await server.user(f"dora-{name}", {name: "admin"})
            revoked = by_sql(
                database,
                f"DELETE FROM user_roles USING users AS u WHERE u.id = user_id AND username = 'dora-{name}'",
            )
            with monkeypatch.context() as patched:
                Meanwhile(patched, revoked)
                # The result depends on whether the server still has the old grants cached.
                assert await outcome(call(user, name)) in ("NAMESPACE_NOT_FOUND", "PERMISSION_DENIED"), name
            stored = await server.admin.containers.get(namespace=name, name="web")
            assert stored.generation == 1, name


async def test_a_secret_deleted_before_the_write_is_not_read(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        Meanwhile(monkeypatch, lambda: server.admin.config.delete_secret(namespace="shop", name="login"))
        assert await outcome(update(server.admin)) == "INVALID_CONTAINER"


async def test_a_namespace_deleted_before_the_write_leaves_the_container_alone(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        for name in ("stop", "restart"):
            await prepare(server, name)
            with monkeypatch.context() as patched:

                def deleted(name: str = name) -> Awaitable[object]:
                    return server.admin.namespaces.delete(name=name, cascade=True)

                Meanwhile(patched, deleted)
                assert await outcome(_CALLS[name](server.admin, name)) in (
                    "CONTAINER_TERMINATING",
                    "CONTAINER_NOT_FOUND",
                    "NAMESPACE_NOT_FOUND",
                ), name
