"""The limit of open files: each program that serves raises its soft limit to the hard limit."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.main_job.test_starting import variables
from tests.processes import finished
from tests.readme.served import serving

# Just enough for a server to start.
_FEW = 512
_PROGRAM = """
import resource, sys
from pilothouse_server.runtime import process_tuning

if sys.argv[1] == "told":
    process_tuning.allow_many_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
# Python imports this module from a folder on its path first; when a process ends, the module writes its limits.
_AT_THE_END = """
import atexit, json, os, resource

def tell():
    with open(os.path.join(os.environ["TOLD"], f"{os.getpid()}.json"), "w") as file:
        json.dump(resource.getrlimit(resource.RLIMIT_NOFILE), file)

atexit.register(tell)
"""


@pytest.fixture
def most() -> Iterator[int]:
    """Yields the hard limit of started programs, and lowers their soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= _FEW or hard == resource.RLIM_INFINITY:
        pytest.skip("there is nothing to be had, or no bound")
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FEW, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _may_have(told: str) -> int:
    code, output, errors = await finished(sys.executable, "-c", _PROGRAM, told)
    assert code == 0, errors.decode()
    return int(output)


async def test_a_process_raises_its_soft_limit_to_the_hard_limit(most: int) -> None:
    assert await _may_have("told") == most
    # The control: otherwise the process keeps the limit that it started with.
    assert await _may_have("not told") == _FEW


@pytest.mark.full
async def test_each_process_that_serves_raises_its_limit(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    hook, told = tmp_path / "hook", tmp_path / "told"
    for folder in (hook, told):
        folder.mkdir()
    (hook / "sitecustomize.py").write_text(_AT_THE_END)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    monkeypatch.setenv("TOLD", str(told))
    async with serving("pilothouse serve --processes 2", tmp_path, variables(database)):
        pass
    limits = [json.loads(each.read_text()) for each in told.iterdir()]
    assert len(limits) >= 3
    assert {tuple(each) for each in limits} == {(most, most)}
