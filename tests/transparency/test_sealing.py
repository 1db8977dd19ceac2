"""The server signs no head that contradicts an earlier one, also after a restart (promise 2)."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import structlog.testing
from prometheus_client import REGISTRY

from pilothouse_client import FailedPreconditionError, audit_verifier
from pilothouse_migrations.histories import begin_new_history
from pilothouse_server.audit import kept_heads, notes
from pilothouse_server.audit.merkle import Edge
from pilothouse_server.audit.sealing import STOPPED_REASON
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.store.rewind_detection import FILE_NAME as POSITION
from tests.conftest import Database, connection
from tests.harness import Server, running_server
from tests.transparency.logs import fill, idle_application, rebuild
from tests.waiting import poll_until

ALTERED = 300


@asynccontextmanager
async def log_server(database: Database, directory: Path) -> AsyncIterator[Server]:
    """Runs a server that seals only on request."""
    async with running_server(database, directory, with_cluster=False, audit_seal_seconds=600.0) as server:
        yield server


async def sealed(server: Server, count: int) -> notes.Checkpoint:
    """Writes some records; returns the head over them."""
    await fill(server, count)
    return notes.parse((await server.application.sealer.seal()).note)[0]


async def alter(sql: asyncpg.Connection, sequence: int = ALTERED) -> None:
    """Alters a record with its hash, tile, edge and the roots of later heads, but not their notes."""
    await sql.execute(
        "UPDATE operation_logs SET username = 'x', record_hash = sha256('x') WHERE sequence = $1", sequence
    )
    hashes = [
        row["record_hash"]
        for row in await sql.fetch("SELECT record_hash FROM operation_logs ORDER BY sequence")
    ]
    size = await sql.fetchval("SELECT size FROM audit_tree")
    heads = [row["size"] for row in await sql.fetch("SELECT size FROM audit_seals WHERE size > $1", sequence)]
    await sql.execute("DELETE FROM audit_tiles")
    edge = Edge()
    for index, data in enumerate(hashes[:size], start=1):
        for tile in edge.grow([data]):
            await sql.execute(
                "INSERT INTO audit_tiles VALUES ($1, $2, $3)", tile.level, tile.position, tile.hashes
            )
        if index in heads:
            await sql.execute("UPDATE audit_seals SET root = $2 WHERE size = $1", index, edge.root())
    await sql.execute("UPDATE audit_tree SET edge = $1", edge.levels)


async def heads(sql: asyncpg.Connection) -> list[str]:
    return [row["note"] for row in await sql.fetch("SELECT note FROM audit_seals ORDER BY size")]


async def alarms(server: Server, sql: asyncpg.Connection) -> list[str]:
    """Returns the messages of the alarm records."""
    await server.application.feed.settled()
    rows = await sql.fetch(
        "SELECT error_message FROM operation_logs WHERE error_code = 'DATA_LOSS' ORDER BY sequence"
    )
    return [row["error_message"] for row in rows]


ATTACKS = {
    "roots of later heads": "SELECT 1",
    "later heads deleted": "DELETE FROM audit_seals WHERE size > 300",
    "all heads deleted": "DELETE FROM audit_seals",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_running_server_signs_no_head_over_an_altered_tree(
    database: Database, tmp_path: Path, attack: str
) -> None:
    async with log_server(database, tmp_path) as server, connection(database.admin_dsn) as sql:
        await sealed(server, 310)
        await sealed(server, 60)
        await alter(sql)
        await sql.execute(ATTACKS[attack])
        before = await heads(sql)
        faults = REGISTRY.get_sample_value("pilothouse_audit_log_faults_total", {"kind": "head"}) or 0.0
        with structlog.testing.capture_logs() as lines:
            for _ in range(2):
                await fill(server, 5)
                with pytest.raises(FailedPrecondition) as caught:
                    await server.application.sealer.seal()
                assert caught.value.reason == STOPPED_REASON
        assert [line["log_level"] for line in lines if "contradicts a head" in line["event"]] == ["error"]
        assert await heads(sql) == before
        found = REGISTRY.get_sample_value("pilothouse_audit_log_faults_total", {"kind": "head"})
        assert found == faults + 1
        assert REGISTRY.get_sample_value("pilothouse_audit_sealing_stopped") == 1
        (message,) = await alarms(server, sql)
        assert message.startswith("sealing stopped: ")
        # Callers receive the reason.
        with pytest.raises(FailedPreconditionError) as refused:
            async with server.admin.audit.export_audit_log() as answers:
                await anext(aiter(answers))
        assert refused.value.reason == STOPPED_REASON


@pytest.mark.full
async def test_a_stop_lasts_until_a_person_begins_a_new_history(database: Database, tmp_path: Path) -> None:
    """Neither undoing the change nor clearing the row ends the stop, for this server or another one."""
    async with log_server(database, tmp_path) as server, connection(database.admin_dsn) as sql:
        before = await sealed(server, 310)
        await sql.execute("CREATE TABLE kept AS SELECT * FROM audit_seals")
        await sql.execute("DELETE FROM audit_seals")
        with pytest.raises(FailedPrecondition, match="is gone"):
            await sealed(server, 1)
        await sql.execute("INSERT INTO audit_seals SELECT * FROM kept")
        with pytest.raises(FailedPrecondition, match="is gone"):
            await sealed(server, 1)
        async with log_server(database, tmp_path / "empty") as other:
            with pytest.raises(FailedPrecondition, match="is gone"):
                await sealed(other, 1)
        await sql.execute("UPDATE audit_tree SET stopped_history = NULL")
        with pytest.raises(FailedPrecondition, match="is gone"):
            await sealed(server, 1)
    async with log_server(database, tmp_path) as server:
        with pytest.raises(FailedPrecondition, match="is gone"):
            await sealed(server, 1)
        await begin_new_history(database.maintenance_dsn, "somebody had deleted heads")
        after = await sealed(server, 1)
        assert after.follows == before.reference
        assert REGISTRY.get_sample_value("pilothouse_audit_sealing_stopped") == 0
        assert (await sealed(server, 1)).follows == ""


async def test_a_restarted_server_compares_with_its_kept_head(database: Database, tmp_path: Path) -> None:
    async with log_server(database, tmp_path) as server:
        await sealed(server, 310)
        kept = await sealed(server, 60)
    assert kept.reference.split()[2] in (tmp_path / kept_heads.FILE_NAME).read_text()
    assert (tmp_path / kept_heads.FILE_NAME).stat().st_mode & 0o077 == 0
    async with connection(database.admin_dsn) as sql:
        await alter(sql)
        await sql.execute("DELETE FROM audit_seals WHERE size > 300")
    async with log_server(database, tmp_path) as server:
        with pytest.raises(FailedPrecondition, match="contradicts"):
            await sealed(server, 1)


@pytest.mark.full
async def test_a_rewritten_log_is_not_taken_for_a_rewind(database: Database, tmp_path: Path) -> None:
    """Events start over, because no watch can continue from a rewritten log.

    The server signs heads again once a person has begun a new history.
    """
    async with log_server(database, tmp_path) as server:
        kept = await sealed(server, 310)
        history = server.application.hub.history

        async def noted() -> bool:
            file = tmp_path / POSITION
            return file.exists() and json.loads(file.read_text())[-1]["marked_sequence"] > 300

        await poll_until(noted, what="the place that the server knows")
    async with connection(database.admin_dsn) as sql:
        await sql.execute("UPDATE operation_logs SET username = 'x' WHERE sequence = 200")
        async with idle_application(database, tmp_path / "idle") as application:
            await rebuild(application, sql)
        # Rewritten records have other marks.
        await sql.execute("UPDATE operation_logs SET mark = int8send(sequence) WHERE sequence >= 200")
        await sql.execute("UPDATE stream_head SET record_mark = int8send(audit_sequence)")
        await sql.execute("DELETE FROM audit_seals")
        with structlog.testing.capture_logs() as lines:
            async with log_server(database, tmp_path) as server:
                assert server.application.hub.history != history
                for _ in range(2):
                    with pytest.raises(FailedPrecondition, match="another record at"):
                        await sealed(server, 1)
                    # Clearing the row does not count as a person's decision.
                    await sql.execute("UPDATE audit_tree SET stopped_history = NULL")
                assert await heads(sql) == []
                assert "somebody rewrote records of the audit log" in await alarms(server, sql)
                # A counter that goes back does not count as one either.
                await sql.execute(
                    "UPDATE audit_tree SET stopped_history = h.history_id FROM stream_head AS h"
                )
                tampered = server.application.hub.history
                await sql.execute("UPDATE stream_head SET revision = revision - 1")

                async def another() -> bool:
                    return server.application.hub.history != tampered

                await poll_until(another, what="a history of a database that went back")
                with pytest.raises(FailedPrecondition, match="another record at"):
                    await sealed(server, 1)
                begun = await begin_new_history(database.maintenance_dsn, "restored what was rewritten")
                head = await server.admin.audit.get_audit_head()
        assert [line["log_level"] for line in lines if "were rewritten" in line["event"]] == ["error"]
    checkpoint = notes.parse(head.checkpoint)[0]
    assert checkpoint.origin.endswith(f"/{begun[:8]}")
    assert checkpoint.follows == kept.reference


async def test_a_rewound_database_is_sealed_under_another_origin(database: Database, tmp_path: Path) -> None:
    """Name and key of the new heads agree.

    The key of the old ones is still shown; both belong to one log.
    """
    tables = ("operation_logs", "audit_seals", "audit_tree", "stream_head")
    async with log_server(database, tmp_path) as server, connection(database.admin_dsn) as sql:
        first = await sealed(server, 20)
        old = await server.admin.audit.get_audit_head()
        async with sql.transaction(isolation="repeatable_read"):
            for table in tables:
                await sql.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
        lost = await sealed(server, 20)
        async with sql.transaction():
            for table in tables:
                await sql.execute(f"DELETE FROM {table}")
                await sql.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")
        await fill(server, 5)
        head = await server.admin.audit.get_audit_head(size=(await server.application.sealer.seal()).size)
        new = notes.parse(head.checkpoint)[0]
        assert lost.origin == first.origin != new.origin
        assert new.follows == lost.reference
        assert await alarms(server, sql) == []
        (key,) = head.verifier_keys
        assert key.split("+")[0] == new.origin
        assert audit_verifier.head(head.checkpoint, key) == (new.origin, new.size, new.root)
        assert [(each.origin, list(each.verifier_keys)) for each in head.histories] == [
            (first.origin, list(old.verifier_keys)),
            (new.origin, [key]),
        ]
        # The log continues what is left of the former history, without the lost records.
        async with server.admin.audit.verify_audit_log(checkpoint=old.checkpoint) as answers:
            *_, verdict = [answer async for answer in answers]
        assert verdict.intact, verdict.findings


@pytest.mark.full
async def test_a_server_without_a_kept_head_trusts_the_newest_valid_signature(
    database: Database, tmp_path: Path
) -> None:
    async with log_server(database, tmp_path) as server, connection(database.admin_dsn) as sql:
        await sealed(server, 310)
        good = await sealed(server, 60)
        await fill(server, 5)
        text, _, signatures = (await heads(sql))[-1].partition("\n\n")
        # A head whose text was not signed with the key.
        forged = text.replace(f"\n{good.size}\n", f"\n{good.size + 1}\n")
        await sql.execute(
            "INSERT INTO audit_seals VALUES ($1, $2, $3)",
            good.size + 1,
            good.root,
            f"{forged}\n\n{signatures}",
        )
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        shutil.copy(tmp_path / "master.key", folder)
    async with log_server(database, tmp_path / "first") as server:
        assert (await sealed(server, 5)).size > good.size + 5
    async with connection(database.admin_dsn) as sql:
        await alter(sql)
    async with log_server(database, tmp_path / "second") as server:
        with pytest.raises(FailedPrecondition, match="names another head"):
            await sealed(server, 1)


async def test_an_unreadable_file_of_kept_heads_is_ignored(database: Database, tmp_path: Path) -> None:
    async with log_server(database, tmp_path) as server:
        before = await sealed(server, 5)
    (tmp_path / kept_heads.FILE_NAME).write_bytes(b"{")
    async with log_server(database, tmp_path) as server:
        assert (await sealed(server, 5)).size >= before.size + 5
