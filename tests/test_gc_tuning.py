"""The frequency of garbage collection: every program that serves makes full collections rare.

A full collection visits all live objects that were created since the start, and no caller is served during it.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse_server.runtime.process_tuning import no_collections
from tests.conftest import Database
from tests.main_job.test_starting import variables
from tests.processes import finished
from tests.readme.served import serving
from tests.simulator.program import simulate_cluster

# Six million objects. Each survives some collections of the young generation, as objects of a waiting call do.
_LOAD = """
import gc, sys

if sys.argv[1] == "told":
    from pilothouse_server.runtime.process_tuning import collect_rarely
    collect_rarely()
before = [each["collections"] for each in gc.get_stats()]
for _ in range(500):
    calls = [[] for _ in range(12_000)]
print(*(each["collections"] - earlier for each, earlier in zip(gc.get_stats(), before)))
"""
# Python imports this module from a folder on its path first; when a process ends, the module writes its settings.
_AT_THE_END = """
import atexit, gc, json, os

def tell():
    with open(os.path.join(os.environ["LOOKS"], f"{os.getpid()}.json"), "w") as file:
        json.dump({"thresholds": gc.get_threshold(), "never again": gc.get_freeze_count()}, file)

atexit.register(tell)
"""


async def _looks(told: str) -> list[int]:
    """Returns how many collections a program makes under that load: of the youngest, the young, and all objects."""
    code, output, errors = await finished(sys.executable, "-c", _LOAD, told)
    assert code == 0, errors.decode()
    return [int(number) for number in output.split()]


async def test_six_million_new_objects_cause_no_full_collection() -> None:
    youngest, young, all_of_them = await _looks("told")
    assert all_of_them == 0
    # The control: the young generations are collected often, a few thousand objects at a time.
    assert youngest > 2000
    assert young > 400


async def test_python_by_default_makes_full_collections_much_more_often() -> None:
    assert (await _looks("not told"))[2] > 20


@asynccontextmanager
async def _serve(line: str, database: Database, folder: Path) -> AsyncIterator[None]:
    async with serving(line, folder, variables(database)):
        yield


@asynccontextmanager
async def _simulate(_line: str, _database: Database, _folder: Path) -> AsyncIterator[None]:
    async with simulate_cluster():
        yield


@pytest.mark.full
@pytest.mark.parametrize(
    ("line", "processes"),
    [("pilothouse serve", 1), ("pilothouse serve --processes 2", 3), ("pilothouse simulate-cluster", 1)],
)
async def test_each_process_that_serves_is_configured(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, processes: int
) -> None:
    hook, told = tmp_path / "hook", tmp_path / "told"
    for folder in (hook, told):
        folder.mkdir()
    (hook / "sitecustomize.py").write_text(_AT_THE_END)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    monkeypatch.setenv("LOOKS", str(told))
    async with (_serve if "serve" in line else _simulate)(line, database, tmp_path):
        pass
    looks = [json.loads(each.read_text()) for each in told.iterdir()]
    assert len(looks) >= processes
    assert {tuple(each["thresholds"]) for each in looks} == {(2_000, 4, 800)}
    # Objects that were loaded at the start are not traversed again.
    assert all(each["never again"] > 10_000 for each in looks)


def test_nothing_is_collected_while_modules_are_loaded() -> None:
    with no_collections():
        assert not gc.isenabled()
    assert gc.isenabled()
