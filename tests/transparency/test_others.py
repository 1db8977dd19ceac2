"""Other people's programs verify and cosign a log that was written under load by two servers and a kill.

Debian: golang-go, golang-golang-x-mod-dev, golang-github-transparency-dev-formats-dev, litetlog, openssh-client.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pilothouse_client import audit_verifier
from tests.conftest import Database
from tests.harness import running_server
from tests.transparency.logs import exported, fill
from tests.waiting import patient, poll_until

pytestmark = pytest.mark.full

GO_PROGRAM = Path(__file__).parent / "others"
_GO_PATH = Path("/usr/share/gocode")
_LIBRARIES = ("golang.org/x/mod/sumdb/tlog", "github.com/transparency-dev/formats/log")
needs_go = pytest.mark.skipif(
    shutil.which("go") is None or not all((_GO_PATH / "src" / each).is_dir() for each in _LIBRARIES),
    reason="needs Debian's golang-go, golang-golang-x-mod-dev and golang-github-transparency-dev-formats-dev",
)
needs_witness = pytest.mark.skipif(
    not all(map(shutil.which, ("litewitness", "witnessctl", "ssh-agent", "ssh-keygen"))),
    reason="needs Debian's litetlog and openssh-client",
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
            # The sessions of one are ended while both write and seal.
            async with one.database.system() as system:
                await system.execute("SELECT 1")
            await asyncio.gather(*writing)
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


@contextmanager
def ssh_agent(directory: Path) -> Iterator[tuple[str, str]]:
    """An agent that holds a new Ed25519 key; the path of its socket, and the key's fingerprint."""
    socket, key = directory / "agent", directory / "witness-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        for _ in range(100):
            if subprocess.run(["ssh-add", "-q", key], env=environment, check=False).returncode == 0:
                break
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True
        ).stdout
        yield str(socket), shown.split()[1]
    finally:
        agent.terminate()
        agent.wait()


@asynccontextmanager
async def witness(directory: Path, logs: Sequence[tuple[str, str]]) -> AsyncIterator[tuple[str, str]]:
    """A litewitness that knows these logs (origin, key); its key and its address."""
    data = directory / "witness.db"
    for origin, key in logs:
        added = await run("witnessctl", "add-log", "-db", data, "-origin", origin)
        assert added.returncode == 0, added.stderr
        added = await run("witnessctl", "add-key", "-db", data, "-origin", origin, "-key", key)
        assert added.returncode == 0, added.stderr
    with ssh_agent(directory) as (socket, fingerprint):
        process = await asyncio.create_subprocess_exec(
            *("litewitness", "-db", str(data), "-name", "witness.example/w1", "-key", fingerprint),
            *("-ssh-agent", socket, "-listen", "127.0.0.1:0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            assert process.stdout is not None
            said = ""
            while not (found := re.search(r"(?:addr|address|listening)\S*[= \"]+(127\.0\.0\.1:\d+)", said)):
                said += (await asyncio.wait_for(process.stdout.readline(), patient(20))).decode()
            named = re.search(r"witness\.example/w1\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+", said)
            assert named is not None, said
            yield named[0], f"http://{found[1]}"
        finally:
            process.terminate()
            await process.wait()


@needs_witness
async def test_a_witness_cosigns_heads_and_refuses_another_log(database: Database, tmp_path: Path) -> None:
    origin = "example.com/pilothouse"
    async with running_server(database, tmp_path, with_cluster=False, audit_origin=origin) as first:
        key = (await first.admin.audit.get_audit_head()).verifier_keys[0]
    async with (
        witness(tmp_path, [(origin, key)]) as (witness_key, address),
        running_server(
            database,
            tmp_path,
            with_cluster=False,
            audit_origin=origin,
            audit_seal_seconds=0.2,
            audit_witnesses=f"1 of {witness_key}@{address}",
        ) as server,
    ):

        async def witnessed() -> list[str]:
            return list((await server.admin.audit.get_audit_head()).witnesses)

        assert await poll_until(witnessed, what="a cosignature") == ["witness.example/w1"]
        await fill(server, 300)
        size = (await server.admin.audit.get_audit_head()).size

        async def further() -> bool:
            head = await server.admin.audit.get_audit_head()
            return head.size > size and list(head.witnesses) == ["witness.example/w1"]

        await poll_until(further, what="a cosignature of a head that continues")
        head = await server.admin.audit.get_audit_head()
        assert audit_verifier.head(head.checkpoint, key)[0] == origin
