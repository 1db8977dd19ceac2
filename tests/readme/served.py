"""`pilothouse serve` as a separate process, on a free port, and a shell next to it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.main_job import loaded
from tests.waiting import patient, within

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATH = f"{BIN}:{os.environ['PATH']}"
# A server of `serve --dev` starts with a copy of a migrated database; test_make.py starts one that makes its own.
_TEMPLATES = ROOT / ".pytest_cache/databases"
README_ADDRESS = "127.0.0.1:50051"
# Characters that are special in bash, quoted or not; `shlex` handles the quotes.
_SYNTAX = re.compile(r"[$|&;<>()`\\*?~{}#!\n]")
_LISTENING = re.compile(r"serves gRPC on (\S+)")


@dataclass
class Shell:
    """Runs lines of the README as a user would, with the server's address in place of the README's."""

    address: str
    directory: Path
    variables: dict[str, str] = field(default_factory=dict)
    directory_of_files: Path = ROOT

    async def run(self, line: str, given: str = "", *, succeeds: bool = True) -> str:
        """Runs a line and returns its output.

        bash runs the line, unless it is a plain `pilothouse` command: then a process that has loaded the command
        forks it, in a tenth of the time.
        """
        line = line.replace(README_ADDRESS, self.address)
        environment_ = {**server_variables(self.directory), **self.variables}
        if line.startswith("pilothouse ") and not _SYNTAX.search(line):
            command = loaded.run(
                shlex.split(line)[1:], environment_, given.encode(), str(self.directory_of_files)
            )
            code, output, errors = await asyncio.wait_for(command, patient(120))
            text = (output + errors).decode()
            assert (code == 0) is succeeds, f"{line}\n{text}"
            return text
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-ceu",
            line,
            cwd=self.directory_of_files,
            env=environment_,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(given.encode()), patient(120))
        except BaseException:
            process.kill()
            await process.wait()
            raise
        text = output.decode()
        assert (process.returncode == 0) is succeeds, f"{line}\n{text}"
        return text


def server_variables(directory: Path) -> dict[str, str]:
    """Returns the environment of a new shell, with the virtual environment on the path."""
    # The test run has variables of its own, and so has the `make` that started it.
    left_out = ("PILOTHOUSE_", "PYTEST_", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {
        **kept,
        "PATH": PATH,
        "PILOTHOUSE_CONFIG": str(directory / "client.json"),
        "COLUMNS": "160",
    }


@asynccontextmanager
async def serving(
    line: str,
    directory: Path,
    variables: Mapping[str, str],
    printed: list[str] | None = None,
    *,
    end_by: signal.Signals = signal.SIGTERM,
) -> AsyncIterator[str]:
    """Runs a line that starts a server, and yields the server's address. Ends the server with a signal.

    `printed` collects the output up to the password of a new administrator, if the server creates one.
    """
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-ceu",
        "exec " + line,
        cwd=directory,
        env={
            **server_variables(directory),
            "PILOTHOUSE_LISTEN": "127.0.0.1:0",
            "PILOTHOUSE_DATABASE_TEMPLATE_DIR": str(_TEMPLATES),
            **variables,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said: list[str] = [] if printed is None else printed
    draining = None
    try:
        async with within(90):
            address = ""
            while not address:
                text = (await process.stdout.readline()).decode()
                assert text, f"{line} ended:\n{''.join(said)}"
                said.append(text)
                found = _LISTENING.search(text)
                address = found[1] if found else ""
            while printed is not None and " password " not in said[-1]:
                said.append((await process.stdout.readline()).decode())
        draining = asyncio.create_task(process.stdout.read())
        yield address
    finally:
        if process.returncode is None:
            process.send_signal(end_by)
        try:
            await asyncio.wait_for(process.wait(), patient(30))
        except TimeoutError:
            process.kill()
            raise
        finally:
            if draining is not None:
                await draining
    assert process.returncode == 0
