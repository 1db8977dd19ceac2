"""CPU time of a process, as the operating system counts it: its own, its children's, and that of ended children."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from benchmarks import processor
from tests.processes import started

pytestmark = pytest.mark.full

_SECONDS = 0.3
# Works for `_SECONDS` of its own CPU time, prints `done`, and lives until its input ends.
_WORKS = f"import time\nwhile time.process_time() < {_SECONDS}: pass\nprint('done', flush=True)\ninput()"
# Makes a child do the work, and continues to live after the child has ended.
_LETS_WORK = (
    "import subprocess, sys\n"
    f"subprocess.run([sys.executable, '-c', {_WORKS!r}], input=b'\\n', stdout=subprocess.DEVNULL)\n"
    "print('done', flush=True)\ninput()"
)
_RESTS = "print('done', flush=True)\ninput()"


async def _used(program: str) -> float:
    pipe = asyncio.subprocess.PIPE
    async with started(sys.executable, "-c", program, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        return processor.seconds(process.pid)


async def test_the_cpu_time_of_a_process_is_counted() -> None:
    assert _SECONDS * 0.9 <= await _used(_WORKS) <= _SECONDS * 3


async def test_the_cpu_time_of_an_ended_child_is_counted() -> None:
    assert await _used(_LETS_WORK) >= _SECONDS * 0.9


async def test_the_cpu_time_of_a_live_child_is_counted() -> None:
    pipe = asyncio.subprocess.PIPE
    before = processor.seconds(os.getpid())
    async with started(sys.executable, "-c", _WORKS, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        assert processor.seconds(os.getpid()) - before >= _SECONDS * 0.9


async def test_idle_time_is_not_counted() -> None:
    assert await _used(_RESTS) < _SECONDS * 0.9
