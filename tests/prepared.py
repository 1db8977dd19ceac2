"""Resources that all processes of a run need and that are made once.

**The database cluster.** initdb and the migrations take seconds of CPU time. The first process does both, stops its
server and leaves a copy of the files; the other processes start with that copy, which is quick to make. A run with
one process makes its own cluster.

**The rewritten modules.** pytest rewrites the asserts of a module on its first import and caches the result next to
the module (not with PYTHONDONTWRITEBYTECODE). If all processes started with the first module, each would rewrite all
modules. Instead, each process starts with its own share and finds most of the other modules cached.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import importlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.processes import finished
from tests.tiers import has_nothing

_PREFIX = "pilothouse-test-"
_FOLDER = pytest.StashKey[Path]()
_INPUT = "prepared_cluster"
Prepare = Callable[[EmbeddedPostgres], Awaitable[object]]


def memory() -> Path | None:
    """Returns a directory in memory, or None if there is none."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Imports this process's share of the modules before the collection."""
    given = getattr(session.config, "workerinput", None)
    if given is not None and not sys.dont_write_bytecode:
        number = int(given["workerid"].removeprefix("gw"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in _modules(session.config)[number :: given["workercount"]]:
                # The collection imports a module again, and reports it, if its import fails or warns here.
                with contextlib.suppress(Exception, pytest.skip.Exception):
                    importlib.import_module(name)
    return (yield)


def _modules(config: pytest.Config) -> list[str]:
    """Returns the test modules that the command line selects, the largest first."""
    root = config.rootpath
    asked = {(config.invocation_params.dir / each.partition("::")[0]).resolve() for each in config.args}
    found = {
        path
        for each in asked
        for path in (each.rglob("test_*.py") if each.is_dir() else [each])
        if path.is_relative_to(root) and not has_nothing(path, config)
    }
    sized = sorted((-path.stat().st_size, path) for path in found)
    return [".".join(path.relative_to(root).with_suffix("").parts) for _, path in sized]


@pytest.fixture(scope="session")
def postgres_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yields the server's directory: in memory if possible, where a clone is ten times as fast."""
    if (place := memory()) is None:
        yield tmp_path_factory.mktemp("postgres")
        return
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def start_prepared(pytestconfig: pytest.Config) -> Callable[[EmbeddedPostgres, Prepare], Awaitable[None]]:
    """Returns a function that starts a server.

    If several processes run tests, the server starts with the files that `prepare` made in one of them.
    """
    return functools.partial(_start, getattr(pytestconfig, "workerinput", {}).get(_INPUT))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Passes the folder of the copy to a worker process that is about to start."""
    stash = node.config.stash
    if _FOLDER not in stash:
        stash[_FOLDER] = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=memory()))
    node.workerinput[_INPUT] = str(stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the copy."""
    if _FOLDER in config.stash:
        shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


async def _start(named: str | None, server: EmbeddedPostgres, prepare: Prepare) -> None:
    if named is not None:
        copy = Path(named, "data")
        with Path(named, "lock").open("w") as lock:
            # The kernel releases the lock even if this process ends early; then the next process makes the copy.
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            if not copy.exists():
                await server.start()
                await prepare(server)
                await server.stop()
                unfinished = copy.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                await _copy(server.data_directory, unfinished)
                unfinished.rename(copy)
        if not server.has_data:
            server.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            await _copy(copy, server.data_directory)
    await server.start()


async def _copy(source: Path, target: Path) -> None:
    """Copies a folder with owners and modes, which PostgreSQL checks."""
    code, _, errors = await finished("cp", "--archive", str(source), str(target), seconds=60.0)
    assert code == 0, errors.decode()
