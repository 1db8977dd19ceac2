"""Debian's witness, `litewitness`, with one log that it accepts.

The program in Debian's package 0.4.3 signs nothing. It passes an array of bytes to its database library, which accepts
only slices: Debian built it with go-llsqlite instead of the program's own crawshaw.io/sqlite. So the program panics
when it stores the first head, for any content of its database. The tests build it from Debian's sources, with the hash
as text in that one place, as the program's own library would have stored it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import started
from tests.transparency import go
from tests.waiting import poll_until

_PACKAGE = "filippo.io/litetlog"
_WITNESS = f"{_PACKAGE}/internal/witness/witness.go"
_PANICS = "nil, newSize, newHash, origin, oldSize)"
_KEEPS = "nil, newSize, newHash.String(), origin, oldSize)"
_LIBRARIES = ("github.com/go-llsqlite/crawshaw", "golang.org/x/crypto/ssh/agent", "golang.org/x/net/http2")
# Enables patterns with a method, which a program that is built without a module otherwise takes for paths.
_ENVIRONMENT = {"GODEBUG": "httpmuxgo121=0"}

needs_litewitness = pytest.mark.skipif(
    any(shutil.which(each) is None for each in ("witnessctl", "litewitness", "ssh-agent", "ssh-keygen"))
    or go.lacks(_WITNESS, *_LIBRARIES, "golang.org/x/mod/sumdb/tlog"),
    reason="needs Debian's litetlog and openssh-client, and the sources of litewitness as .ci/run unpacks them",
)


async def built(folder: Path) -> Path:
    """Builds the program from Debian's patched source."""
    file = go.source(_WITNESS)
    assert file is not None
    text = file.read_text()
    assert text.count(_PANICS) == 1, "another version: see whether Debian's own program signs now"
    return await go.build(f"{_PACKAGE}/cmd/litewitness", folder, {file: text.replace(_PANICS, _KEEPS)})


@dataclass(frozen=True, slots=True)
class Litewitness:
    """A running witness: its key as notes write it, its address, and its database."""

    key: str
    address: str
    database: Path
    said: Path

    def knows(self, origin: str) -> tuple[int, str]:
        """Returns the size and the root, in base64, of the head of a log that the witness signed last."""
        with closing(sqlite3.connect(self.database)) as sql:
            found: tuple[int, str] = sql.execute(
                "SELECT tree_size, tree_hash FROM log WHERE origin = ?", (origin,)
            ).fetchone()
        return found

    def believes(self, origin: str, root: str) -> None:
        """Replaces the root of that head in the witness's database."""
        with closing(sqlite3.connect(self.database)) as sql, sql:
            sql.execute("UPDATE log SET tree_hash = ? WHERE origin = ?", (root, origin))


@asynccontextmanager
async def litewitness(program: str | Path, name: str, origin: str, key: str) -> AsyncIterator[Litewitness]:
    """Runs a witness of this name until the end of the block.

    The witness accepts one log, by its origin and key.
    """
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="witness-") as directory:
        folder = Path(directory)
        socket, database, said = folder / "agent", folder / "db", folder / "said"
        await _did("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
        fingerprint = (await _did("ssh-keygen", "-l", "-f", folder / "key.pub")).split()[1]
        for words in (("add-log",), ("add-key", "-key", key)):
            await _did("witnessctl", words[0], "-db", database, "-origin", origin, *words[1:])
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with said.open("wb") as errors:
            async with started("ssh-agent", "-D", "-a", str(socket), **quiet):
                await poll_until(lambda: _exists(socket), what="the agent that has the key")
                await _did("ssh-add", "-q", folder / "key", environment={"SSH_AUTH_SOCK": str(socket)})
                options = ["-name", name, "-key", fingerprint, "-ssh-agent", str(socket)]
                options += ["-db", str(database), "-listen", "127.0.0.1:0"]
                async with started(
                    str(program), *options, env={**os.environ, **_ENVIRONMENT}, stderr=errors
                ) as process:
                    port = await poll_until(lambda: _port(process), what=f"a port of {said}")
                    found = re.search(r'vkey="?([^"\s]+)', said.read_text())
                    assert found is not None, said.read_text()
                    yield Litewitness(found[1], f"http://127.0.0.1:{port}", database, said)


async def _did(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    ended = await go.run(*command, environment=environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


async def _exists(path: Path) -> bool:
    return path.exists()


async def _port(process: asyncio.subprocess.Process) -> int | None:
    """Returns the port that a process listens on, because the program does not print it."""
    assert process.returncode is None, "it has ended"
    sockets = set()
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        # The program opens and closes files while it starts.
        with suppress(FileNotFoundError):
            sockets.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and rest[5] in sockets:
            return int(local.rpartition(":")[2], 16)
    return None
