"""A database that is full, lacks a resource or is read-only.

Calls are refused with that reason, and logged briefly.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, PilothouseError, RetryPolicy
from pilothouse_client.streams import ChangeKind
from pilothouse_server.errors import Unavailable
from pilothouse_server.rpc.interceptors import audit
from pilothouse_server.rpc.refusals import Bounds
from pilothouse_server.store.errors import translated
from tests.conftest import Database, StartMigrated, connection, number_changes
from tests.harness import PASSWORD, Server, running_server
from tests.promises.test_failover import replicated
from tests.server_logs import logging_as_served
from tests.store.going_back import point, send_to_all
from tests.waiting import poll_until, within

_CALLS = 40


@pytest.mark.parametrize(
    ("sqlstate", "message", "reason"),
    [
        ("53000", "insufficient resources", "DATABASE_BUSY"),
        ("53100", "could not extend file", "DATABASE_FULL"),
        ("53200", "out of shared memory", "DATABASE_BUSY"),
        ("53300", "too many connections", "DATABASE_BUSY"),
        ("53400", "temporary file size exceeds temp_file_limit (1024kB)", "DATABASE_BUSY"),
        ("53400", "no partition of events holds the next revision", "PARTITION_MISSING"),
        ("25006", "cannot execute INSERT in a read-only transaction", "DATABASE_UNAVAILABLE"),
    ],
)
async def test_statements_that_postgresql_refuses_raise_unavailable(
    database: Database, sqlstate: str, message: str, reason: str
) -> None:
    before = _refused(reason, sqlstate)
    async with database.system() as sql:
        with pytest.raises(Unavailable) as refused, translated():
            await sql.execute(f"DO $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = '{sqlstate}'; END $$")
    assert refused.value.reason == reason
    assert (refused.value.retry_after_seconds or 0) > 0
    assert message not in refused.value.message
    assert _refused(reason, sqlstate) - before == (reason != "PARTITION_MISSING")


def _refused(reason: str, sqlstate: str) -> float:
    labels = {"reason": reason, "sqlstate": sqlstate}
    return REGISTRY.get_sample_value("pilothouse_database_refused_total", labels) or 0.0


_FULL = """
CREATE FUNCTION pg_temp_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON pending_changes FOR EACH STATEMENT EXECUTE FUNCTION pg_temp_full();
"""
_ROOM = "DROP TRIGGER full_disk ON pending_changes; DROP FUNCTION pg_temp_full()"


def _lines(written: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.splitlines()]


async def _refusal(client: AsyncClient, name: str) -> tuple[str, str, float | None]:
    with pytest.raises(PilothouseError) as refused:
        await client.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
    return refused.value.code.name, refused.value.reason, refused.value.retry_delay


@pytest.mark.full
async def test_calls_on_a_full_disk_are_retried_and_logged_in_one_line(
    database: Database, tmp_path: Path
) -> None:
    async with (
        running_server(database, tmp_path, with_cluster=False) as server,
        connection(database.admin_dsn) as sql,
        AsyncClient(
            server.address, username="admin", password=PASSWORD, retry=RetryPolicy(attempts=1)
        ) as impatient,
    ):
        await server.admin.identity.check_permission(permission="namespace.create")
        await impatient.identity.check_permission(permission="namespace.create")
        before = _refused("DATABASE_FULL", "53100")
        with logging_as_served("INFO", "json") as written:
            await sql.execute(_FULL)
            refusals = await asyncio.gather(*(_refusal(impatient, f"shop-{i}") for i in range(_CALLS)))
            # A call that may be retried is retried until there is space.
            waiting = asyncio.create_task(
                server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
            )

            async def refused() -> float:
                return _refused("DATABASE_FULL", "53100") - before

            await poll_until(refused, lambda count: count > _CALLS)
            lines = _lines(written.getvalue())
            await sql.execute(_ROOM)
            async with within(30):
                assert (await waiting).name == "shop"
    assert Counter(refusals) == {("UNAVAILABLE", "DATABASE_FULL", 5.0): _CALLS}
    assert [line["event"] for line in lines if line.get("reason") == "DATABASE_FULL"] == [
        "the database refuses statements"
    ]
    assert "Traceback" not in written.getvalue()
    assert [
        line for line in lines if line["level"] == "error" and line.get("reason") != "DATABASE_FULL"
    ] == []


@pytest.mark.full
async def test_sums_of_refusals_by_a_full_disk_are_numbered(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namespaces of the calls were rolled back, and no record refers to them."""
    monkeypatch.setattr(audit, "_OF_A_USER", Bounds(of_a_kind=2, singly=4, sums=20))
    async with (
        running_server(database, tmp_path, with_cluster=False) as server,
        connection(database.admin_dsn) as sql,
        AsyncClient(
            server.address, username="admin", password=PASSWORD, retry=RetryPolicy(attempts=1)
        ) as impatient,
    ):
        await impatient.identity.check_permission(permission="namespace.create")
        await sql.execute(_FULL)
        for number in range(8):
            await _refusal(impatient, f"shop-{number}")
        await sql.execute(_ROOM)
        server.application.audit.flush()
        # This call is durable, so everything that was handed over before it is also written.
        await impatient.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))

        async def summed() -> int:
            await number_changes(sql)
            return int(
                await sql.fetchval("SELECT count(*) FROM operation_logs WHERE metadata ? 'summed'")
                + await sql.fetchval("SELECT count(*) FROM pending_incidents")
            )

        await poll_until(summed)
        assert await sql.fetch("SELECT sqlstate, constraint_name FROM pending_incidents") == []


async def _set_read_only(sql: asyncpg.Connection, *, read_only: bool) -> None:
    """Sets the default that sessions beginning from now on have."""
    await sql.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = "
        f"{'on' if read_only else 'off'}', current_database()); END $$"
    )


@pytest.mark.full(minutes=3)
async def test_a_server_continues_once_a_read_only_database_takes_writes(
    database: Database, tmp_path: Path
) -> None:
    """Earlier sessions stay read-only, but no operator has to end them."""
    async with running_server(database, tmp_path) as server, connection(database.admin_dsn) as sql:

        async def begin() -> None:
            await _set_read_only(sql, read_only=True)
            await sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        told = await _takes_no_writes(server, begin, lambda: _set_read_only(sql, read_only=False))
        assert len(told) == 1, told


@pytest.mark.full(minutes=3)
async def test_a_server_continues_once_a_standby_is_promoted(
    tmp_path: Path, start_migrated: StartMigrated
) -> None:
    async with (
        replicated(tmp_path, start_migrated) as pair,
        running_server(pair.database, tmp_path) as server,
    ):

        async def begin() -> None:
            send_to_all(pair.primary, signal.SIGKILL)
            point(pair.address, pair.standby)

        told = await _takes_no_writes(server, begin, pair.standby.take_over)
        assert len(told) == 1, told


async def _takes_no_writes(
    server: Server, begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]]
) -> list[dict[str, Any]]:
    """Runs a server while its database is read-only, and after that.

    Returns the log of the read-only time.
    """
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
    await _ready(server, "before")
    impatient = AsyncClient(
        server.address, username="admin", password=PASSWORD, retry=RetryPolicy(attempts=1)
    )
    await impatient.identity.check_permission(permission="namespace.create")
    refused = partial(_refused, "DATABASE_UNAVAILABLE", "25006")
    before = refused()
    async with impatient, server.admin.containers.watch(namespace="shop") as changes:
        while (await anext(changes)).kind is not ChangeKind.SYNCED:
            pass
        with logging_as_served("INFO", "json") as written:
            await begin()

            async def takes_none() -> float:
                assert (await _refusal(impatient, "more"))[:2] == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
                return refused() - before

            await poll_until(takes_none, lambda count: count >= _CALLS, seconds=20)
            # Reads continue.
            assert (await server.admin.containers.get(namespace="shop", name="before")).name == "before"
            told = _lines(written.getvalue())
            await end()
            await _ready(server, "after")
        async with within(30):
            while (await anext(changes)).resource.name != "after":
                pass
    assert "Traceback" not in written.getvalue()
    assert [line for line in told if line["level"] == "error" and "reason" not in line] == []
    return [line for line in told if line.get("reason") == "DATABASE_UNAVAILABLE"]


async def _ready(server: Server, name: str) -> None:
    """Creates a container, and returns once the reconciler has created it in the cluster."""
    made = container_pb2.Container(name=name, image="nginx:1.27", replicas=1)
    await server.admin.containers.create(namespace="shop", container=made)

    async def ready() -> int:
        return int((await server.admin.containers.get(namespace="shop", name=name)).ready_replicas)

    await poll_until(ready, lambda replicas: replicas == 1, seconds=20)
