"""Sealed heads, proofs, exports and tiles of a running server, checked by independent programs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError, audit_verifier
from pilothouse_migrations.histories import begin_new_history
from pilothouse_server.audit import exporting, merkle
from tests.conftest import Database, connection, number_changes
from tests.harness import Server, running_server
from tests.transparency.logs import exported, fill, hashes_of, lines_of
from tests.waiting import poll_until

VERIFIER = Path(audit_verifier.__file__)


async def operation_id(server: Server, condition: str) -> str:
    """Returns the id of the newest call that matches an SQL condition."""
    async with connection(server.database.admin_dsn) as sql:
        await number_changes(sql)
        found = await sql.fetchval(
            f"SELECT operation_id::text FROM operation_logs WHERE {condition} ORDER BY sequence DESC LIMIT 1"
        )
    assert found is not None
    return str(found)


@pytest.mark.full
async def test_records_are_sealed_proven_exported_and_published(database: Database, tmp_path: Path) -> None:
    async with running_server(
        database,
        tmp_path,
        with_cluster=False,
        audit_origin="example.com/pilothouse",
        audit_seal_seconds=0.2,
        audit_tiles_listen="127.0.0.1:0",
    ) as server:
        audit = server.admin.audit
        first = await audit.get_audit_head()
        key = first.verifier_keys[0]
        assert audit_verifier.head(first.checkpoint, key)[:2] == ("example.com/pilothouse", first.size)
        await fill(server, 600)

        async def sealed() -> bool:
            return (await audit.get_audit_head()).size > 600

        await poll_until(sealed, what="a head over what is new")
        await _proofs(server, first.checkpoint, key)
        await _export(server, first.checkpoint, key, tmp_path)
        await _export_in_small_answers(server)
        await _tiles(server, key)
        async with audit.verify_audit_log(checkpoint=first.checkpoint) as answers:
            *_, verdict = [answer async for answer in answers]
        assert verdict.done
        assert verdict.intact, verdict.findings
        assert verdict.verified_records > 600


async def _proofs(server: Server, older: str, key: str) -> None:
    audit = server.admin.audit
    for condition in ("resource_name = 'container-7'", "true"):
        # The second one is of a call that is not sealed yet.
        proof = await audit.prove_operation(operation_id=await operation_id(server, condition))
        _, size, root = audit_verifier.head(proof.head.checkpoint, key)
        leaf = merkle.leaf_hash(sha256(proof.record.encode()).digest())
        assert audit_verifier.root_of(leaf, proof.leaf_index, size, hashes_of(proof.hashes)) == root
        assert proof.leaf_index == proof.sequence - 1
        assert proof.proof.endswith(proof.head.checkpoint)
    consistency = await audit.prove_consistency(checkpoint=older)
    assert consistency.first_size == audit_verifier.head(older, key)[1]
    assert consistency.hashes
    for wrong, code in (
        ({"checkpoint": older.replace("example.com", "example.org")}, "FAILED_PRECONDITION"),
        ({"checkpoint": older.replace("\n\n", "\n")}, "INVALID_ARGUMENT"),
        (
            {"checkpoint": older[:-12] + ("B" if older[-12] == "A" else "A") + older[-11:]},
            "FAILED_PRECONDITION",
        ),
        ({"first_size": 10**9}, "INVALID_ARGUMENT"),
        ({"first_size": 1, "second_size": 10**9}, "NOT_FOUND"),
        ({}, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(PilothouseError) as caught:
            await audit.prove_consistency(**wrong)
        assert caught.value.code.name == code, wrong


def _as_auditor(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", VERIFIER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def _export(server: Server, older: str, key: str, directory: Path) -> None:
    file, checkpoint = directory / "export.jsonl", directory / "checkpoint"
    await exported(server.admin, file)
    checkpoint.write_text(older)
    # As an auditor runs it: alone, without access to this project.
    ended = await asyncio.to_thread(_as_auditor, file, key, "--from-checkpoint", checkpoint)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["complete"]
    assert found["records"] > 600
    assert found["checkpoint"] == "matches"
    lines = file.read_text().splitlines(keepends=True)
    altered = [*lines[:50], lines[50].replace("somebody", "nobodyyy"), *lines[51:]]
    assert altered != lines
    for wrong, words in (
        (lines[:-1], "cut off"),
        (altered, "is not in the log"),
        (
            [*lines[:50], *lines[51:-1], lines[-1].replace(str(found["records"]), str(found["records"] - 1))],
            "missing",
        ),
        ([*lines[:50], lines[51], lines[50], *lines[52:]], "comes after"),
    ):
        with pytest.raises(audit_verifier.WrongError, match=words):
            audit_verifier.verify(iter(wrong), key)
    other = key.replace("+", "+0", 1)
    with pytest.raises((audit_verifier.WrongError, ValueError)):
        audit_verifier.verify(iter(lines), other)
    # An export that was cut at any place continues with the same head.
    part = directory / "part.jsonl"
    size, place = lines_of(file)[0]["size"], lines_of(file)[300]["sequence"]
    await exported(server.admin, part, after_sequence=place, tree_size=size)
    assert lines_of(part)[1:-1] == lines_of(file)[301:-1]


async def _export_in_small_answers(server: Server) -> None:
    """The records and their proofs are the same for any limit of a response."""
    size = (await server.admin.audit.get_audit_head()).size
    found = []
    for most in (exporting.MOST_BYTES_AT_ONCE, 1, 2_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporting, "MOST_BYTES_AT_ONCE", most)
            async with server.admin.audit.export_audit_log(tree_size=size) as answers:
                parts = [list(answer.records) async for answer in answers if answer.records]
        found.append([record for part in parts for record in part])
        assert len(found[-1]) == size
        assert all(sum(len(each.record) for each in part[:-1]) < most for part in parts)
    assert found[0] == found[1] == found[2]


async def _tiles(server: Server, key: str) -> None:
    assert server.application.tiles is not None
    address = f"http://127.0.0.1:{server.application.tiles.port}"
    async with aiohttp.ClientSession() as session:

        async def fetch(path: str, status: int = 200) -> bytes:
            async with session.get(f"{address}/{path}") as answer:
                assert answer.status == status, path
                return await answer.read()

        _, size, root = audit_verifier.head((await fetch("checkpoint")).decode(), key)
        leaves = b""
        for index in range(size // 256):
            leaves += await fetch(f"tile/0/{index:03d}")
        leaves += await fetch(f"tile/0/{size // 256:03d}.p/{size % 256}") if size % 256 else b""
        frontier = merkle.Frontier()
        for at in range(0, len(leaves), 32):
            frontier.add(leaves[at : at + 32])
        assert (frontier.size, frontier.root()) == (size, root)
        entries = await fetch("tile/entries/000")
        assert len(entries) == 256 * 34
        assert merkle.leaf_hash(entries[2:34]) == leaves[:32]
        roots = await fetch(f"tile/1/000.p/{size // 256}")
        assert roots[:32] == merkle.full_root(leaves[:8192])
        for path in ("tile/0/999", "tile/9/000", "nothing", "tile/0/x999/999"):
            await fetch(path, 404)


async def test_a_tenant_can_prove_only_records_that_it_may_see(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        for name in ("own", "foreign"):
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
        tenant = await server.user("tenant", {"own": "developer"})
        own = await operation_id(server, "action = 'create' AND resource_name = 'own'")
        foreign = await operation_id(server, "action = 'create' AND resource_name = 'foreign'")
        proof = await tenant.audit.prove_operation(operation_id=own)
        _, size, root = audit_verifier.head(proof.head.checkpoint, proof.head.verifier_keys[0])
        leaf = merkle.leaf_hash(sha256(proof.record.encode()).digest())
        assert audit_verifier.root_of(leaf, proof.leaf_index, size, hashes_of(proof.hashes)) == root
        for hidden in (foreign, "00000000-0000-4000-8000-000000000000"):
            with pytest.raises(PilothouseError) as caught:
                await tenant.audit.prove_operation(operation_id=hidden)
            assert caught.value.code.name == "NOT_FOUND"
        with pytest.raises(PilothouseError) as caught:
            await anext(tenant.audit.verify_audit_log())
        assert caught.value.code.name == "PERMISSION_DENIED"


async def test_two_servers_grow_one_tree(database: Database, tmp_path: Path) -> None:
    """Two servers write and seal one log; its key follows from the shared master keys."""
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=0.05) as one:
        async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=0.05) as two:
            await asyncio.gather(
                *(
                    fill(server, 300, age=timedelta(seconds=number))
                    for number, server in enumerate((one, two))
                ),
                *(server.admin.audit.get_audit_head() for server in (one, two) for _ in range(5)),
            )
            first = await one.admin.audit.get_audit_head()
        async with one.admin.audit.verify_audit_log(checkpoint=first.checkpoint) as answers:
            *_, verdict = [answer async for answer in answers]
        assert verdict.intact, verdict.findings
        assert verdict.verified_records > 600
        async with connection(database.admin_dsn) as sql:
            seals = await sql.fetch("SELECT size, root, note, sealed_at FROM audit_seals ORDER BY size")
        assert len(seals) > 1
        assert all(None not in tuple(seal) for seal in seals)


async def test_a_server_notices_missing_heads_and_a_missing_tree(database: Database, tmp_path: Path) -> None:
    """The database does not show that they existed, so the server must not report an intact log."""
    async with (
        running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server,
        connection(database.admin_dsn) as sql,
    ):
        audit = server.admin.audit
        head = await audit.get_audit_head()

        async def verdict() -> pb.VerifyAuditLogResponse:
            async with audit.verify_audit_log() as answers:
                *_, last = [answer async for answer in answers]
            return last

        assert (await verdict()).intact
        await sql.execute("CREATE TABLE kept AS SELECT * FROM audit_seals")
        await sql.execute("DELETE FROM audit_seals WHERE size >= $1", head.size)
        found = await verdict()
        assert not found.intact
        assert [each.fault for each in found.findings] == [pb.AUDIT_FAULT_SEAL]
        assert "leaves is gone" in found.findings[0].description
        await sql.execute("DELETE FROM audit_seals")
        await sql.execute("INSERT INTO audit_seals SELECT * FROM kept")
        # Restored rows do not permit signing again: a person has to check the log.
        assert not (await verdict()).intact
        await begin_new_history(database.maintenance_dsn, "somebody had deleted heads")
        assert (await verdict()).intact
        await sql.execute("DELETE FROM audit_tree")
        for call in (verdict, audit.get_audit_head):
            with pytest.raises(PilothouseError) as caught:
                await call()
            assert (caught.value.code.name, caught.value.reason) == (
                "FAILED_PRECONDITION",
                "AUDIT_LOG_DAMAGED",
            )
