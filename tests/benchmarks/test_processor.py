"""Processor time of a process, by the operating system: its own, its children's, and that of ended ones."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from benchmarks import processor
from tests.processes import started

pytestmark = pytest.mark.full

_SECONDS = 0.3
# Works for so long by its own clock, says so, and lives until its input ends.
_WORKS = f"import time\nwhile time.process_time() < {_SECONDS}: pass\nprint('done', flush=True)\ninput()"
# Has a child do it, and lives on when that has ended.
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


async def test_what_a_process_worked_is_counted() -> None:
    assert _SECONDS * 0.9 <= await _used(_WORKS) <= _SECONDS * 3


async def test_what_an_ended_child_worked_is_counted() -> None:
    assert await _used(_LETS_WORK) >= _SECONDS * 0.9


async def test_what_a_living_child_worked_is_counted() -> None:
    pipe = asyncio.subprocess.PIPE
    before = processor.seconds(os.getpid())
    async with started(sys.executable, "-c", _WORKS, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        assert processor.seconds(os.getpid()) - before >= _SECONDS * 0.9


async def test_rest_is_not_work() -> None:
    assert await _used(_RESTS) < _SECONDS * 0.9
