"""Runs `pilothouse simulate-cluster` in its own process, as a user does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.waiting import within

_COMMAND = Path(sys.executable).with_name("pilothouse")
_LAST_LINE = b"current-context:"


@asynccontextmanager
async def simulate_cluster(*arguments: str) -> AsyncIterator[str]:
    """Yields the kubeconfig that the command prints. At the end of the block, SIGTERM must end the cluster cleanly."""
    process = await asyncio.create_subprocess_exec(
        _COMMAND, "simulate-cluster", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        text = b""
        async with within(30):
            while _LAST_LINE not in text:
                line = await process.stdout.readline()
                assert line, "the program ended before it printed a kubeconfig"
                text += line
        yield text.decode()
        process.terminate()
        async with within(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
