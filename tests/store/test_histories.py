"""A rewound database begins a new history and reports it.

A database that lost nothing continues its history (promise 15).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.errors import PilothouseError
from pilothouse_client.streams import Change, ChangeKind
from pilothouse_migrations import roles
from pilothouse_migrations.histories import begin_new_history
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres, program
from pilothouse_server.store import rewind_detection
from tests.conftest import Database, StartMigrated, connection, new_database, number_changes
from tests.harness import Server, running_server
from tests.processes import finished
from tests.promises.stored_log import log_faults
from tests.store.going_back import NAME, SETTINGS, Standby, copy_files, one_address, point
from tests.waiting import poll_until, within


async def make(server: Server, name: str) -> None:
    """Creates a container in the namespace `shop`."""
    await server.admin.containers.create(
        namespace="shop", container=container_pb2.Container(name=name, image="nginx:1.27")
    )


async def take(changes: Any, count: int) -> list[tuple[ChangeKind, str]]:
    """Returns the next changes of a watch.

    Bookmarks may come at any time, and so may status changes caused by the missing cluster; both are left out.
    """
    found: list[Change[Any]] = []
    async with within(30):
        while len(found) < count:
            change = await anext(changes)
            if change.kind not in (ChangeKind.BOOKMARK, ChangeKind.MODIFIED):
                found.append(change)
    return [(change.kind, change.resource.name) for change in found]


async def histories(database: Database) -> tuple[str, list[dict[str, Any]]]:
    """Returns the name of the history, and the audit records of begun histories.

    The log must have no faults.
    """
    async with connection(database.admin_dsn) as sql:
        await number_changes(sql)
        assert await log_faults(sql) == []
        rows = await sql.fetch(
            "SELECT metadata FROM operation_logs WHERE resource_type = 'database' AND action = 'other' "
            "ORDER BY sequence"
        )
        name = str(await sql.fetchval("SELECT history_id FROM stream_head"))
    return name, [row["metadata"] for row in rows]


async def token_of(server: Server) -> str:
    """Returns a resume token of the present state."""
    async with server.admin.containers.watch(namespace="shop") as changes:
        while (await anext(changes)).kind is not ChangeKind.SYNCED:
            pass
        return str(changes.resume_token)


async def refused(server: Server, token: str) -> str:
    """Returns the server's status code for refusing a token, or '' if it accepts the token."""
    request = container_pb2.WatchContainersRequest(
        namespace="shop", resume_token=token, bookmark_period_seconds=1
    )
    call = server.channel().unary_stream(
        "/pilothouse.container.v1.ContainerService/WatchContainers",
        request_serializer=container_pb2.WatchContainersRequest.SerializeToString,
        response_deserializer=container_pb2.WatchContainersResponse.FromString,
    )(request, metadata=(("authorization", f"Bearer {await server.token()}"),))
    try:
        async with within(10):
            await anext(aiter(call))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    finally:
        call.cancel()
    return ""


@pytest.mark.full
async def test_a_restored_dump_begins_a_new_history(
    database: Database, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    dump = tmp_path / "dump"
    async with running_server(database, tmp_path / "data", with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        await make(server, "kept")
        early = await token_of(server)
        async with connection(database.admin_dsn) as sql:
            await number_changes(sql)
        words = [str(program("pg_dump")), "--format=custom", f"--file={dump}", database.admin_dsn]
        code, _, errors = await finished(*words)
        assert code == 0, errors
        await make(server, "lost")
        late = await token_of(server)
        history, begun = await histories(database)
        assert begun == []
    async with new_database(postgres) as restored:
        async with connection(postgres.dsn()) as admin:
            logins = ", ".join(roles.LOGINS.values())
            await admin.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {restored.name} TO {logins}")
        code, _, errors = await finished(
            str(program("pg_restore")), "--single-transaction", f"--dbname={restored.admin_dsn}", str(dump)
        )
        assert code == 0, errors
        # A server that has stored the earlier position detects the rewind as it starts.
        async with running_server(restored, tmp_path / "data", with_cluster=False) as server:
            name, begun = await histories(restored)
            assert name != history
            assert [(each["history"], each["history_before"]) for each in begun] == [(name, history)]
            assert begun[0]["reason"] == "the database went back"
            assert " after " in begun[0]["seen"]
            await make(server, "anew")
            await make(server, "anew-2")
            for token in (early, late):
                assert await refused(server, token) == "OUT_OF_RANGE"
            held = await token_of(server)
            assert await refused(server, held) == ""
        # A restarted server continues with that history and records it only once.
        async with running_server(restored, tmp_path / "data", with_cluster=False) as server:
            assert await histories(restored) == (name, begun)
            assert await refused(server, held) == ""
            # The command is for a rewind that no server can detect; running servers notice the new history immediately.
            async with server.admin.containers.watch(namespace="shop") as changes:
                state = await take(changes, 4)
                assert state[-1][0] is ChangeKind.SYNCED
                clusters = server.application.clusters
                connected = await clusters.client("local")

                async def connected_anew() -> bool:
                    return await clusters.client("local") is not connected

                by_hand = await begin_new_history(restored.maintenance_dsn, "tried by hand")
                assert (await take(changes, 1))[0][0] is ChangeKind.RESTARTED
                assert await take(changes, 4) == state
                await poll_until(connected_anew, what="clusters are observed anew")
            now, begun = await histories(restored)
            assert now == by_hand
            assert begun[-1]["reason"] == "tried by hand"
            assert await refused(server, held) == "OUT_OF_RANGE"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yields the servers' folder, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ph-history-", ignore_cleanup_errors=True) as made:
        # A server that root starts runs as another user.
        Path(made).chmod(0o755)
        yield Path(made)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def prepared(folder: Path, start_migrated: StartMigrated) -> Path:
    """Returns the folder of a migrated database on which no server runs."""
    server = EmbeddedPostgres(folder / "prepared", settings=SETTINGS)
    try:
        await start_migrated(server, NAME)
    finally:
        await server.stop()
    return server.directory


@asynccontextmanager
async def running(server: EmbeddedPostgres) -> AsyncIterator[EmbeddedPostgres]:
    """Runs a PostgreSQL server until the end of the block."""
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.full
@pytest.mark.parametrize("loses", [True, False], ids=["lossy", "lossless"])
async def test_a_promoted_standby_begins_a_history_only_after_losses(
    prepared: Path, tmp_path: Path, *, loses: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="ph-standby-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        place = Path(made)
        copy_files(prepared, place / "primary")
        primary = EmbeddedPostgres(place / "primary", settings=SETTINGS)
        standby = Standby.of(primary, prepared, place / "standby")
        with one_address(place, primary) as (database, address):
            async with running(primary), running(standby):
                before, now = await _failover(database, address, primary, standby, tmp_path, loses=loses)
                assert (now != before) is loses


async def _failover(
    database: Database,
    address: Path,
    primary: EmbeddedPostgres,
    standby: Standby,
    directory: Path,
    *,
    loses: bool,
) -> tuple[str, str]:
    """Fails over to the standby while a server runs and a client watches.

    Returns the names of the history before and after.
    """
    async with running_server(database, directory, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        await make(server, "kept")
        before, _ = await histories(database)

        async def has_all() -> bool:
            async with connection(primary.dsn()) as one, connection(standby.dsn()) as other:
                written = await one.fetchval("SELECT pg_current_wal_lsn()")
                return bool(await other.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", written))

        async with server.admin.containers.watch(namespace="shop") as changes:
            assert await take(changes, 2) == [(ChangeKind.ADDED, "kept"), (ChangeKind.SYNCED, "")]
            if loses:
                await poll_until(has_all, what="the standby has all")
                await standby.follow_no_longer()
            await make(server, "perhaps")
            assert await take(changes, 1) == [(ChangeKind.ADDED, "perhaps")]
            token = changes.resume_token
            if not loses:
                await poll_until(has_all, what="the standby has all")
            await primary.stop()
            await standby.take_over()
            point(address, standby)

            async def made() -> bool:
                try:
                    await make(server, "after")
                except PilothouseError:
                    return False
                return True

            await poll_until(made, seconds=30, what="a container can be made again")
            if loses:
                assert (await take(changes, 1))[0][0] is ChangeKind.RESTARTED
                state = await take(changes, 3)
                assert sorted(name for kind, name in state if kind is ChangeKind.ADDED) == ["after", "kept"]
            else:
                assert await take(changes, 1) == [(ChangeKind.ADDED, "after")]
            name, begun = await histories(database)
            assert len(begun) == int(loses)
            assert await refused(server, token) == ("OUT_OF_RANGE" if loses else "")
            return before, name


@pytest.mark.full
async def test_a_restored_snapshot_begins_a_new_history(prepared: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ph-snapshot-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        place = Path(made)
        copy_files(prepared, place / "first")
        first = EmbeddedPostgres(place / "first", settings=SETTINGS)
        with one_address(place, first) as (database, address):
            async with (
                running(first),
                running_server(database, tmp_path, with_cluster=False) as server,
            ):
                await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
                await make(server, "kept")
            copy_files(first.directory, place / "second")
            async with (
                running(first),
                running_server(database, tmp_path, with_cluster=False) as server,
            ):
                for number in range(3):
                    await make(server, f"lost-{number}")
                before, begun = await histories(database)
                assert begun == []
                token = await token_of(server)
            second = EmbeddedPostgres(place / "second", settings=SETTINGS)
            point(address, second)
            known = json.loads((tmp_path / rewind_detection.FILE_NAME).read_text())[-1]
            async with running(second):
                # Another server continues with the snapshot until its head is beyond the stored position: then only the
                # marks differ.
                async with running_server(
                    database,
                    place / "another",
                    with_cluster=False,
                    secret_key_file=tmp_path / "master.key",
                ) as server:
                    for number in count():
                        await make(server, f"others-{number}")
                        async with connection(database.admin_dsn) as sql:
                            await number_changes(sql)
                            head = await sql.fetchrow("SELECT revision, audit_sequence FROM stream_head")
                        if (
                            head["revision"] > known["revision"]
                            and head["audit_sequence"] > known["sequence"]
                        ):
                            break
                    assert number > 0
                    assert (await histories(database))[0] == before
                async with running_server(database, tmp_path, with_cluster=False) as server:
                    name, begun = await histories(database)
                    assert name != before
                    assert begun[0]["seen"].startswith(
                        f"another event at revision {known['revision']}; system "
                    )
                    assert await refused(server, token) == "OUT_OF_RANGE"
