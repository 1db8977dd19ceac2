"""From a clone of the project to a control plane that responds: `make run` in an empty folder.

The row is measured only on request: it installs every package again, from the package source of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.measure import Figure
from benchmarks.testbed import Testbed

_LIMIT_SECONDS = 900.0
_SAYS = b"Pilothouse serves gRPC on "


async def make_run(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures one run, and a second run of the same clone, which has its packages and its database."""
    what = "git clone and make run, until it serves"
    if shutil.which("git") is None or shutil.which("make") is None:
        yield Figure("clone", what, reason="git and make are needed")
        return
    project = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        # If root starts it, PostgreSQL runs as another user, and that user must be able to access its programs.
        Path(directory).chmod(0o755)
        clone = Path(directory) / "clone"
        began = time.monotonic()
        git = await asyncio.create_subprocess_exec("git", "clone", "--quiet", str(project), str(clone))
        if await git.wait():
            raise RuntimeError("the project cannot be cloned")
        await _serve(clone)
        first = time.monotonic() - began
        began = time.monotonic()
        await _serve(clone)
        again = time.monotonic() - began
    yield Figure("clone", what, "s", first, again, "make run again")


async def _serve(clone: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    process = await asyncio.create_subprocess_exec(
        "make",
        "run",
        cwd=clone,
        env={**environment, "PILOTHOUSE_LISTEN": "127.0.0.1:0"},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            while line := await process.stdout.readline():
                if line.startswith(_SAYS):
                    return
        raise RuntimeError(f"make run ended with {await process.wait()}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()
