"""Other people's programs verify a log that two servers have written.

Debian: golang-go, golang-golang-x-mod-dev, golang-github-transparency-dev-formats-dev.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import identity_pb2
from pilothouse_client import AsyncClient, PilothouseError
from tests.conftest import Database
from tests.harness import running_server
from tests.server_program import ServerProgram, program, variables
from tests.transparency.logs import exported, witnessed
from tests.transparency.witness import witness
from tests.waiting import patient, poll_until

pytestmark = pytest.mark.full

GO_PROGRAM = Path(__file__).parent / "others"
_GO_PATH = Path("/usr/share/gocode")
_LIBRARIES = ("golang.org/x/mod/sumdb/tlog", "github.com/transparency-dev/formats/log")
needs_go = pytest.mark.skipif(
    shutil.which("go") is None or not all((_GO_PATH / "src" / each).is_dir() for each in _LIBRARIES),
    reason="needs Debian's golang-go, golang-golang-x-mod-dev and golang-github-transparency-dev-formats-dev",
)


async def run(
    *command: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [str(each) for each in command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(300),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def verify(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, of Debian's sources alone: nothing is fetched."""
    directory = tmp_path_factory.mktemp("go")
    built = directory / "verify"
    ended = await run(
        "go",
        "build",
        "-o",
        built,
        GO_PROGRAM / "main.go",
        environment={
            "GO111MODULE": "off",
            "GOPATH": str(_GO_PATH),
            "GOFLAGS": "",
            "GOCACHE": str(directory / "cache"),
            "GOTOOLCHAIN": "local",
        },
    )
    assert ended.returncode == 0, ended.stderr
    return built


class Wrote:
    """Roles whose creation was acknowledged, in servers that are killed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def on(self, server: ServerProgram) -> None:
        """Makes role after role until the server is gone."""
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
        """Returns once so many more are acknowledged."""
        wanted = len(self.names) + count
        await poll_until(lambda: _reached(self.names, wanted), seconds=60)


async def _reached(names: Sequence[str], count: int) -> bool:
    return len(names) >= count


@needs_go
async def test_go_verifies_heads_records_and_consistency(
    database: Database, tmp_path: Path, verify: Path
) -> None:
    origin = "example.com/pilothouse"
    environment = variables(
        database, tmp_path, {"PILOTHOUSE_AUDIT_ORIGIN": origin, "PILOTHOUSE_AUDIT_SEAL_SECONDS": "0.05"}
    )
    wrote = Wrote()
    head = None
    # Two servers write and seal, and are killed while they do, one after the other; twice.
    for _ in range(2):
        async with program(environment) as one, program(environment) as two:
            head = head or await one.client.audit.get_audit_head()
            async with asyncio.TaskGroup() as writing:
                for server in (one, one, two, two):
                    writing.create_task(wrote.on(server))
                for server in (one, two):
                    await wrote.more(80)
                    await server.kill()
    assert head is not None
    async with program(environment) as last:
        client = last.client
        file, older, proof = tmp_path / "export.jsonl", tmp_path / "older", tmp_path / "proof.json"
        # A log of these records: what was numbered after the kills is sealed within a period.
        await poll_until(partial(is_sealed, client, wrote.names[-1]), seconds=30)
        await exported(client, file)
        older.write_text(head.checkpoint)
        size = json.loads(file.read_text().splitlines()[0])["size"]
        found = await client.audit.prove_consistency(checkpoint=head.checkpoint, second_size=size)
        proof.write_text(json.dumps(list(found.hashes)))
        key = head.verifier_keys[0]
    good = await run(verify, file, key, older, proof)
    assert good.returncode == 0, good.stderr
    assert f"consistent with {head.size}" in good.stdout
    assert int(good.stdout.splitlines()[-1].split()[0]) >= len(wrote.names)
    # Every change that was acknowledged stands in what was verified.
    lines = file.read_text().splitlines(keepends=True)
    made = {
        record["resource_name"]
        for line in lines
        if (record := json.loads(json.loads(line).get("record") or "{}")).get("action") == "create"
    }
    assert set(wrote.names) <= made
    for wrong in (
        [
            *lines[:30],
            lines[30].replace("admin", "nimda", 1).replace("pilothouse", "pilothousf", 1),
            *lines[31:],
        ],
        [lines[0].replace(f"\\n{size}\\n", f"\\n{size + 1}\\n"), *lines[1:]],
        lines[:-1],
    ):
        assert wrong != lines
        file.write_text("".join(wrong))
        assert (await run(verify, file, key)).returncode == 1


async def is_sealed(client: AsyncClient, name: str) -> bool:
    """Whether the record that this role was made is a leaf of a sealed head."""
    head = await client.audit.get_audit_head()
    found = [
        record.sequence
        async for record in client.audit.list_operations(filter=f'resource_name = "{name}"')
        if record.action == "create"
    ]
    return bool(found) and found[0] <= head.size + head.chain_length


@needs_go
async def test_go_verifies_the_signatures_of_witnesses(
    database: Database, tmp_path: Path, verify: Path
) -> None:
    origin = "example.com/pilothouse"
    settings: dict[str, Any] = {"with_cluster": False, "audit_origin": origin, "audit_seal_seconds": 0.2}
    async with running_server(database, tmp_path, **settings) as server:
        key = (await server.admin.audit.get_audit_head()).verifier_keys[0]
    began = int(time.time())
    async with witness("one.example/w", {origin: key}) as one, witness("two.example/w", {origin: key}) as two:
        policy = f"2 of {one.key}@{one.address}, {two.key}@{two.address}"
        async with running_server(database, tmp_path, **settings, audit_witnesses=policy) as server:
            head = await poll_until(partial(witnessed, server), what="two cosignatures")
    assert head is not None
    file = tmp_path / "head"
    file.write_text(head.checkpoint)
    good = await run(verify, "--cosigned", file, origin, key, one.key, two.key)
    assert good.returncode == 0, good.stderr
    for line, name in zip(good.stdout.splitlines(), ("one.example/w", "two.example/w"), strict=True):
        found, moment, size = line.split()
        assert (found, int(size)) == (name, head.size)
        assert int(moment) >= began
    # The key of a third, and a signature of another moment.
    async with witness("two.example/w", {}) as other:
        assert (await run(verify, "--cosigned", file, origin, key, one.key, other.key)).returncode == 1
    signature = next(line for line in head.checkpoint.splitlines() if "two.example/w" in line).split()[-1]
    raw = bytearray(base64.b64decode(signature))
    raw[11] ^= 1
    file.write_text(head.checkpoint.replace(signature, base64.b64encode(raw).decode()))
    assert (await run(verify, "--cosigned", file, origin, key, one.key, two.key)).returncode == 1
