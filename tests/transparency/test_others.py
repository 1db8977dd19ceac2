"""Programs of other projects verify a log that two servers wrote together under load, killed while they did.

Debian: golang-go, golang-golang-x-mod-dev, golang-github-transparency-dev-formats-dev.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import identity_pb2
from pilothouse_client import AsyncClient, PilothouseError, audit_verifier
from pilothouse_server.audit import notes
from pilothouse_server.audit.notes import Checkpoint
from pilothouse_server.audit.sealing import Sealer
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection, new_database
from tests.harness import running_server
from tests.server_program import ServerProgram, program, variables
from tests.transparency.go import needs_go, run
from tests.transparency.logs import (
    detached,
    exported,
    exported_at_rest,
    idle_application,
    rebuild,
    superuser,
    verified,
    witnessed,
)
from tests.transparency.test_tampering import TAMPERINGS
from tests.transparency.witness import witness
from tests.waiting import poll_until

pytestmark = [pytest.mark.full(minutes=10), needs_go]

ORIGIN = "example.com/pilothouse"
VERIFIER = Path(audit_verifier.__file__)


@dataclass
class Written:
    """A log that killed servers wrote: the acknowledged changes, an early head, and the log's key."""

    database: Database
    folder: Path
    names: list[str] = field(default_factory=list)
    checkpoint: str = ""
    size: int = 0
    key: str = ""

    async def on(self, server: ServerProgram) -> None:
        """Creates role after role until the server is killed."""
        while True:
            name = f"role-{len(self.names)}-{uuid4().hex[:8]}"
            try:
                await server.client.identity.create_role(
                    role=identity_pb2.Role(name=name, permissions=["container.get"])
                )
            except PilothouseError:
                return
            self.names.append(name)

    async def more(self, count: int) -> None:
        """Returns once `count` more changes are acknowledged."""
        wanted = len(self.names) + count

        async def reached() -> bool:
            return len(self.names) >= wanted

        await poll_until(reached, seconds=60)

    @property
    def older(self) -> Path:
        """Writes the early head to a file and returns its path."""
        file = self.folder / "older"
        file.write_text(self.checkpoint)
        return file


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def written(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Written]:
    """Runs two servers that write and seal, with four concurrent clients.

    Kills one server after the other while they write, and does all of that twice.
    """
    folder = tmp_path_factory.mktemp("written")
    async with new_database(postgres, template_database.name) as database:
        environment = variables(
            database, folder, {"PILOTHOUSE_AUDIT_ORIGIN": ORIGIN, "PILOTHOUSE_AUDIT_SEAL_SECONDS": "0.05"}
        )
        log = Written(database, folder)
        for _ in range(2):
            async with (
                program(environment) as one,
                program(environment) as two,
                asyncio.TaskGroup() as writing,
            ):
                for server in (one, one, two, two):
                    writing.create_task(log.on(server))
                for server in (one, two):
                    await log.more(80)
                    if not log.checkpoint:
                        head = await poll_until(
                            server.client.audit.get_audit_head, lambda head: head.size > 60
                        )
                        log.checkpoint, log.size, log.key = head.checkpoint, head.size, head.verifier_keys[0]
                    await server.kill()
        yield log


async def as_auditor(export: Path, key: str, *checkpoint: Path) -> tuple[int, str]:
    """Runs the offline verifier as an auditor does: alone, without access to this project."""
    kept: tuple[str | Path, ...] = ("--from-checkpoint", *checkpoint) if checkpoint else ()
    ended = await run(sys.executable, "-I", "-S", VERIFIER, export, key, *kept)
    return ended.returncode, ended.stdout + ended.stderr


async def test_acknowledged_changes_are_in_a_log_that_others_verify(
    written: Written, tmp_path: Path, verify: Path
) -> None:
    environment = variables(
        written.database,
        written.folder,
        {"PILOTHOUSE_AUDIT_ORIGIN": ORIGIN, "PILOTHOUSE_AUDIT_SEAL_SECONDS": "0.05"},
    )
    async with program(environment) as last:
        client = last.client
        file, proof = tmp_path / "export.jsonl", tmp_path / "proof.json"
        # Records that are numbered after the kills are sealed within a period, so the log covers them.
        await poll_until(partial(is_sealed, client, written.names[-1]), seconds=30)
        await exported(client, file)
        async with client.audit.verify_audit_log(checkpoint=written.checkpoint) as answers:
            *_, verdict = [answer async for answer in answers]
        size = json.loads(file.read_text().splitlines()[0])["size"]
        found = await client.audit.prove_consistency(checkpoint=written.checkpoint, second_size=size)
        proof.write_text(json.dumps(list(found.hashes)))
    assert verdict.done
    assert verdict.intact, verdict.findings
    good = await run(verify, file, written.key, written.older, proof)
    assert good.returncode == 0, good.stderr
    assert f"consistent with {written.size}" in good.stdout
    code, said = await as_auditor(file, written.key, written.older)
    assert code == 0, said
    told = json.loads(said)
    assert (told["complete"], told["checkpoint"], told["dropped"]) == (True, "matches", 0)
    assert int(good.stdout.splitlines()[-1].split()[0]) == told["records"] >= len(written.names)
    # The verified records contain every acknowledged change.
    records = [json.loads(json.loads(line).get("record") or "{}") for line in file.read_text().splitlines()]
    made = [each["resource_name"] for each in records if each.get("action") == "create"]
    assert {name: made.count(name) for name in written.names} == dict.fromkeys(written.names, 1)
    proof.write_text(json.dumps(list(found.hashes)[:-1]))
    assert (await run(verify, file, written.key, written.older, proof)).returncode == 1


async def is_sealed(client: AsyncClient, name: str) -> bool:
    """Returns whether the record of this role's creation is a leaf of a sealed head."""
    head = await client.audit.get_audit_head()
    found = [
        record.sequence
        async for record in client.audit.list_operations(filter=f'resource_name = "{name}"')
        if record.action == "create"
    ]
    return bool(found) and found[0] <= head.size


_ALTERED = "record 300.* is not in the log at its place"
_GONE = "records 300 to {} are missing"
# The findings about an export of a tampered log, by the Go program and by the offline verifier. None means no finding,
# because the export does not contain the altered parts.
SHOWN: dict[str, str | None] = {
    "a character": _ALTERED,
    "a microsecond": _ALTERED,
    "a number in a body": _ALTERED,
    "a record with its hash": _ALTERED,
    "deletion": _GONE.format(301),
    "a swap": _ALTERED,
    "an insertion": "record 300 comes after record 300",
    "a record beyond the end": _GONE.format(300),
    "a tile": "is not in the log at its place",
    "a head": None,
    "a note": "verify signature|signature of the head|no signature|invalid signature|not signed by",
    "the end of the records": r"records \d+ to \d+ are missing",
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found_by_every_verifier(
    written: Written, tmp_path: Path, verify: Path, name: str
) -> None:
    statements, expected = TAMPERINGS[name]
    file = tmp_path / "export.jsonl"
    async with idle_application(written.database, written.folder / "data") as application:
        await application.sealer.seal()
        async with superuser(written.database) as sql:
            for statement in statements:
                assert not (await sql.execute(statement)).endswith(" 0"), "nothing was done"
            found = {(each.fault, each.first, each.last) for each in (await verified(application)).findings}
            if name == "a tile that is gone":
                with pytest.raises(FailedPrecondition, match="tiles of the audit log are missing"):
                    await exported_at_rest(application, file)
            else:
                await exported_at_rest(application, file)
        assert (await verified(application)).findings == []
    for fault, first, last in expected:
        assert (fault, first, last) in found or (first == 0 and fault in {each[0] for each in found}), found
    if name in SHOWN:
        await is_shown(verify, file, written.key, SHOWN[name])


async def is_shown(verify: Path, file: Path, key: str, words: str | None) -> None:
    """Checks that both verifiers report `words` about an export."""
    ended = await run(verify, file, key)
    for code, said in ((ended.returncode, ended.stdout + ended.stderr), await as_auditor(file, key)):
        assert code == (1 if words else 0), said
        assert re.search(words or "", said), said


async def test_a_detached_partition_and_a_cut_file_are_found(
    written: Written, tmp_path: Path, verify: Path
) -> None:
    whole, file = tmp_path / "whole.jsonl", tmp_path / "export.jsonl"
    async with idle_application(written.database, written.folder / "data") as application:
        await application.sealer.seal()
        await exported_at_rest(application, whole)
        async with connection(written.database.admin_dsn) as sql, detached(sql) as (first, last):
            await exported_at_rest(application, file)
    await is_shown(verify, file, written.key, f"records {first} to {last} are missing")
    lines = whole.read_text().splitlines(keepends=True)
    size = json.loads(lines[0])["size"]
    for wrong, words in (
        (lines[:-1], "cut off after record"),
        ([*lines[:50], *lines[51:]], r"\d+ records"),
        ([lines[0].replace(f"\\n{size}\\n", f"\\n{size + 1}\\n"), *lines[1:]], "signature"),
    ):
        assert wrong != lines
        file.write_text("".join(wrong))
        await is_shown(verify, file, written.key, words)


async def test_an_attacker_who_can_sign_is_found_by_a_kept_head(
    written: Written, tmp_path: Path, verify: Path
) -> None:
    file, proof = tmp_path / "export.jsonl", tmp_path / "proof.json"
    async with idle_application(written.database, written.folder / "data") as application:
        await application.sealer.seal()
        kept, _ = notes.parse(written.checkpoint)
        async with superuser(written.database) as sql:
            await sql.execute("UPDATE operation_logs SET username = 'x' WHERE sequence = 50")
            await sql.execute("DELETE FROM audit_seals")
            await rebuild(application, sql)
            # By a server that has not seen the deleted heads.
            await Sealer(
                application.store, application.sealer.identity, lambda: 0, period_seconds=60.0
            ).seal()
            await exported_at_rest(application, file)
            hashes = await _consistency(application, kept)
            assert (await verified(application)).findings == []
            assert (await verified(application, kept)).findings
    proof.write_text(json.dumps([base64.b64encode(each).decode() for each in hashes]))
    await is_shown(verify, file, written.key, None)
    code, said = await as_auditor(file, written.key, written.older)
    assert code == 1
    assert "not those of the checkpoint" in said
    assert (await run(verify, file, written.key, written.older, proof)).returncode == 1


async def _consistency(application: Any, kept: Checkpoint) -> Sequence[bytes]:
    from pilothouse_server.audit import proofs
    from pilothouse_server.store import audit_tree

    async with application.store.system_read() as transaction:
        state = await audit_tree.read(transaction)
        return await proofs.consistency(transaction, state, kept.size, state.size)


async def test_go_reads_the_head_that_a_new_history_follows(tmp_path: Path, verify: Path) -> None:
    before = Checkpoint(ORIGIN, 7, bytes(32))
    signer = notes.Signer(f"{ORIGIN}/0123abcd", bytes(range(32)))
    head = Checkpoint(signer.name, 9, bytes(32), before.reference)
    file = tmp_path / "head"
    file.write_text(notes.signed(head, [signer]))
    read = await run(verify, "--cosigned", file, signer.name, str(signer.verifier))
    assert (read.returncode, read.stdout) == (0, f"follows {before.reference}\n"), read.stderr
    # The line is signed: another one is refused.
    file.write_text(file.read_text().replace(f"{ORIGIN} 7 ", f"{ORIGIN} 6 "))
    assert (await run(verify, "--cosigned", file, signer.name, str(signer.verifier))).returncode == 1


async def test_go_verifies_the_signatures_of_witnesses(
    database: Database, tmp_path: Path, verify: Path
) -> None:
    settings: dict[str, Any] = {"with_cluster": False, "audit_origin": ORIGIN, "audit_seal_seconds": 0.2}
    async with running_server(database, tmp_path, **settings) as server:
        key = (await server.admin.audit.get_audit_head()).verifier_keys[0]
    began = int(time.time())
    async with witness("one.example/w", {ORIGIN: key}) as one, witness("two.example/w", {ORIGIN: key}) as two:
        policy = f"2 of {one.key}@{one.address}, {two.key}@{two.address}"
        async with running_server(database, tmp_path, **settings, audit_witnesses=policy) as server:
            head = await poll_until(partial(witnessed, server), what="two cosignatures")
    assert head is not None
    file = tmp_path / "head"
    file.write_text(head.checkpoint)
    good = await run(verify, "--cosigned", file, ORIGIN, key, one.key, two.key)
    assert good.returncode == 0, good.stderr
    for line, name in zip(good.stdout.splitlines(), ("one.example/w", "two.example/w"), strict=True):
        found, moment, size = line.split()
        assert (found, int(size)) == (name, head.size)
        assert int(moment) >= began
    # The key of another witness, and a signature with another time.
    async with witness("two.example/w", {}) as other:
        assert (await run(verify, "--cosigned", file, ORIGIN, key, one.key, other.key)).returncode == 1
    signature = next(line for line in head.checkpoint.splitlines() if "two.example/w" in line).split()[-1]
    raw = bytearray(base64.b64decode(signature))
    raw[11] ^= 1
    file.write_text(head.checkpoint.replace(signature, base64.b64encode(raw).decode()))
    assert (await run(verify, "--cosigned", file, ORIGIN, key, one.key, two.key)).returncode == 1
