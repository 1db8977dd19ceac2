"""Programs that tests start and that end with the block that needs them, however the block ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.waiting import patient


@asynccontextmanager
async def started(*words: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yields a program, which is killed at the end of the block; options as in asyncio's subprocess."""
    process = await asyncio.create_subprocess_exec(*words, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def finished(
    *words: str, given: bytes = b"", seconds: float = 60.0, **options: Any
) -> tuple[int, bytes, bytes]:
    """Returns the exit code, the output and the errors of a program that must end within `seconds`."""
    pipe = asyncio.subprocess.PIPE
    async with started(*words, **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **options}) as process:
        output, errors = await asyncio.wait_for(process.communicate(given or None), patient(seconds))
    assert process.returncode is not None
    return process.returncode, output or b"", errors or b""


async def is_gone(process_id: int) -> bool:
    """Returns whether the process has ended, even if no parent has waited for it yet.

    PID 1 adopts orphans, but not every PID 1 reaps them.
    """
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"
