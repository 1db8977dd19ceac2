"""How a test runs the `pilothouse` command."""

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
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Command = Callable[..., Awaitable[Ended]]


async def run_to_end(words: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"") -> Ended:
    """Runs the command to its end, in a process of its own that has it loaded already."""
    running = loaded.run(words, environment, stdin)
    code, out, err = await asyncio.wait_for(running, patient(60.0))
    return Ended(code, out.decode(), err.decode())


def command_of_administrator(server: Server, namespace: str, directory: Path, **variables: str) -> Command:
    """Runs the command as the administrator in a namespace, with a configuration in a directory."""
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
