"""Runs the `pilothouse` command in tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness import Server
from tests.main_job import loaded
from tests.waiting import patient


@dataclass(frozen=True)
class Ended:
    """The exit code and the output of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Command = Callable[..., Awaitable[Ended]]


async def run_to_end(words: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"") -> Ended:
    """Runs the command to its end, in its own process, which has the modules loaded already."""
    running = loaded.run(words, environment, stdin)
    code, out, err = await asyncio.wait_for(running, patient(60.0))
    return Ended(code, out.decode(), err.decode())


def command_of_administrator(server: Server, namespace: str, directory: Path, **variables: str) -> Command:
    """Returns a function that runs the command as the administrator, with its configuration in `directory`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}

    async def run(*words: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Ended:
        own = {
            "PILOTHOUSE_SERVER": server.address,
            "PILOTHOUSE_TOKEN": await server.token(),
            "PILOTHOUSE_NAMESPACE": namespace,
            "PILOTHOUSE_CONFIG": str(directory / "config.json"),
        }
        return await run_to_end(words, {**kept, **own, **variables, **(environment or {})}, stdin)

    return run
