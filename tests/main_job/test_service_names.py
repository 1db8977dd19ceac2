"""A Service name belongs to one container or to one standalone Service, under any concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse_client import PilothouseError
from tests.conftest import Database, connection
from tests.harness import Server, running_server
from tests.main_job.test_created_at_once import Meanwhile
from tests.waiting import poll_until

_BARRIER = 8_000_001
_PORT = container_pb2.Port(container_port=80, service_name="front")

Call = Callable[[], Awaitable[object]]


async def prepare(server: Server) -> None:
    """Makes a namespace without a quota, and two containers without Services."""
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="small"))
    for name in ("one", "two"):
        await server.admin.containers.create(
            namespace="small", container=container_pb2.Container(name=name, image="nginx:1.27")
        )


def creates(server: Server, name: str) -> Call:
    made = container_pb2.Container(name=name, image="nginx:1.27", ports=[_PORT])
    return lambda: server.admin.containers.create(namespace="small", container=made)


def updates(server: Server, name: str) -> Call:
    return lambda: server.admin.containers.update(
        namespace="small",
        name=name,
        container=container_pb2.Container(ports=[_PORT]),
        update_mask=FieldMask(paths=["ports"]),
    )


def serves(server: Server) -> Call:
    front = network_pb2.Service(name="front", ports=[network_pb2.ServicePort(port=80)])
    return lambda: server.admin.network.create_service(namespace="small", service=front)


async def outcome(call: Call) -> str:
    try:
        await call()
    except PilothouseError as error:
        return error.reason
    return "done"


@pytest.mark.parametrize("kind", [creates, updates])
async def test_only_one_of_two_servers_gives_a_container_the_service(
    database: Database, tmp_path: Path, kind: Callable[[Server, str], Call]
) -> None:
    """Unless one waits for the other, both have compared the ports before either writes its own."""
    async with (
        running_server(database, tmp_path, with_cluster=False) as one,
        running_server(database, tmp_path, with_cluster=False) as two,
        connection(database.admin_dsn) as sql,
    ):
        await prepare(one)
        source = await sql.fetchval("SELECT pg_get_functiondef('write_container_parts'::regproc)")
        barrier = f"PERFORM pg_advisory_xact_lock_shared({_BARRIER});"
        await sql.execute(source.replace("BEGIN", f"BEGIN {barrier}", 1))
        await sql.execute(f"SELECT pg_advisory_lock({_BARRIER})")

        async def waiting() -> int:
            found: int = await sql.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )
            return found

        names = ("three", "four") if kind is creates else ("one", "two")
        calls = [
            asyncio.ensure_future(outcome(kind(server, name)))
            for server, name in zip((one, two), names, strict=True)
        ]
        await poll_until(waiting, lambda count: count == 2)
        await sql.execute(f"SELECT pg_advisory_unlock({_BARRIER})")
        assert sorted(await asyncio.gather(*calls)) == ["SERVICE_ALREADY_EXISTS", "done"]


@pytest.mark.parametrize("kind", [creates, updates])
async def test_a_container_cannot_take_the_name_of_a_standalone_service(
    database: Database, tmp_path: Path, kind: Callable[[Server, str], Call]
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        await serves(server)()
        name = "three" if kind is creates else "one"
        with pytest.raises(PilothouseError) as refused:
            await kind(server, name)()
        assert refused.value.reason == "SERVICE_ALREADY_EXISTS"
        assert 'service "front" already exists' in str(refused.value)


@pytest.mark.parametrize("kind", [creates, updates])
async def test_a_service_made_before_the_container_is_written_keeps_its_name(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Server, str], Call]
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        Meanwhile(monkeypatch, serves(server))
        assert await outcome(kind(server, "three" if kind is creates else "one")) == "SERVICE_ALREADY_EXISTS"
