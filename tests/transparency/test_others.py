"""Other people's programs verify a log that two servers have written.

Debian: golang-go, golang-golang-x-mod-dev, golang-github-transparency-dev-formats-dev.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import Database, connection
from tests.harness import running_server
from tests.transparency.logs import exported, fill
from tests.waiting import patient

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


async def built(directory: Path) -> Path:
    """The Go program, of Debian's sources alone: nothing is fetched."""
    program = directory / "verify"
    ended = await run(
        "go",
        "build",
        "-o",
        program,
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
    return program


@needs_go
async def test_go_verifies_heads_records_and_consistency(database: Database, tmp_path: Path) -> None:
    program = await built(tmp_path)
    origin = "example.com/pilothouse"
    settings = {"with_cluster": False, "audit_origin": origin, "audit_seal_seconds": 0.05}
    async with running_server(database, tmp_path, **settings) as one:  # type: ignore[arg-type]
        head = await one.admin.audit.get_audit_head()
        async with running_server(database, tmp_path, **settings) as two:  # type: ignore[arg-type]
            writing = [
                asyncio.create_task(fill(server, 400, age=timedelta(seconds=number)))
                for number, server in enumerate((one, two))
            ]
            # Sessions are ended while both write and seal.
            async with connection(database.admin_dsn) as sql:
                await sql.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND random() < 0.5"
                )
            await asyncio.gather(*writing, return_exceptions=True)
            await fill(one, 400)
            await fill(two, 400)
        file, older, proof = tmp_path / "export.jsonl", tmp_path / "older", tmp_path / "proof.json"
        await exported(one.admin, file)
        older.write_text(head.checkpoint)
        size = json.loads(file.read_text().splitlines()[0])["size"]
        found = await one.admin.audit.prove_consistency(checkpoint=head.checkpoint, second_size=size)
        proof.write_text(json.dumps(list(found.hashes)))
        key = head.verifier_keys[0]
    good = await run(program, file, key, older, proof)
    assert good.returncode == 0, good.stderr
    assert f"consistent with {head.size}" in good.stdout
    assert int(good.stdout.splitlines()[-1].split()[0]) > 800
    lines = file.read_text().splitlines(keepends=True)
    for wrong in (
        [
            *lines[:30],
            lines[30].replace("somebody", "nobodyyy", 1).replace("pilothouse", "pilothousf", 1),
            *lines[31:],
        ],
        [lines[0].replace(f"\\n{size}\\n", f"\\n{size + 1}\\n"), *lines[1:]],
        lines[:-1],
    ):
        assert wrong != lines
        file.write_text("".join(wrong))
        assert (await run(program, file, key)).returncode == 1
