"""Runs the `pilothouse` command as a person does: in its own process, against a server of the test."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import PASSWORD, Server
from tests.main_job import loaded
from tests.waiting import patient

COMMAND = Path(sys.executable).with_name("pilothouse")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a command: its exit code, output and errors."""

    code: int
    output: str
    errors: str


class Shell:
    """Runs commands with their own configuration file."""

    def __init__(self, directory: Path) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")},
            "PILOTHOUSE_CONFIG": str(directory / "client.json"),
            "COLUMNS": "200",
        }

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Starts a command; the caller must end it."""
        return await asyncio.create_subprocess_exec(
            COMMAND,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )

    async def run(self, *arguments: str, given: str = "", seconds: float = 90.0) -> Outcome:
        """Runs a command to its end."""
        running = loaded.run(arguments, self.environment, given.encode())
        code, output, errors = await asyncio.wait_for(running, patient(seconds))
        return Outcome(code, output.decode(), errors.decode())

    async def succeed(self, *arguments: str, given: str = "") -> str:
        """Runs a command that must succeed, and returns its output."""
        outcome = await self.run(*arguments, given=given)
        assert outcome.code == 0, f"pilothouse {' '.join(arguments)}: {outcome}"
        return outcome.output

    async def read(self, *arguments: str) -> Any:
        """Runs a command with `-o json`, and returns the parsed output."""
        return json.loads(await self.succeed(*arguments, "-o", "json"))

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
        """Runs a command until the block ends, and yields its output."""
        process = await self.start(*arguments)
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def logged_in(server: Server, directory: Path) -> Shell:
    """Returns a shell whose user is the administrator."""
    shell = Shell(directory)
    await shell.succeed(
        "login", "--server", server.address, "--user", "admin", "--password-stdin", given=PASSWORD + "\n"
    )
    return shell
