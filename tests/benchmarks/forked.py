"""`python -m tests.benchmarks.forked MODULE ...`: runs a program of `benchmarks` whose processes are forked.

When each process measures for a tenth of a second, the servers and the loads spend most of their time on loading
modules. So they are forked from a process that has loaded the server.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.product import COMMAND

from tests.main_job import loaded

_started_otherwise = asyncio.create_subprocess_exec


class _Forked:
    """A forked process: the part of asyncio's subprocesses that `benchmarks` uses."""

    def __init__(self, command: loaded.StartedCommand, stdin: asyncio.StreamWriter | None) -> None:
        self._command = command
        self.pid, self.stdin, self.stdout = command.pid, stdin, command.stdout
        self.wait, self.terminate = command.wait, command.terminate

    def kill(self) -> None:
        """Ends the process by force."""
        os.kill(self.pid, 9)


async def _start(
    *words: str, env: Mapping[str, str] | None = None, limit: int = 1 << 16, **streams: Any
) -> Any:
    """Replaces `asyncio.create_subprocess_exec`."""
    if words[:2] == COMMAND:
        module, rest = "", words[1:]
    elif words[:2] == (sys.executable, "-m") and words[2].startswith("benchmarks."):
        module, rest = words[2], words[3:]
    else:
        return await _started_otherwise(*words, env=env, limit=limit, **streams)
    errors, given, stdin = streams.get("stderr"), None, None
    if streams.get("stdin") is not None:
        given, ours = os.pipe()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(ours, "wb", buffering=0)
        )
        stdin = asyncio.StreamWriter(transport, protocol, None, loop)
    command = await loaded.start(
        rest,
        os.environ if env is None else env,
        module,
        sys.stderr.fileno() if errors is None else errors.fileno(),
        given,
    )
    command.stdout._limit = limit  # type: ignore[attr-defined]
    return _Forked(command, stdin)


def main() -> None:
    """Runs the module that the first argument names, with the other arguments."""
    module, *words = sys.argv[1:]
    asyncio.create_subprocess_exec = _start  # type: ignore[assignment]
    sys.argv[1:] = words
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        loaded.end()


if __name__ == "__main__":
    main()
