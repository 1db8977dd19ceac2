"""The targets that a new user types after `make` work.

`.ci/run` runs `make test test-all` and `make lint`, which would run this test again. `ARGS`, which the Makefile
passes on, cuts the long targets short.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path

import pytest

from pilothouse_client import AsyncClient
from tests.conftest import FIRST
from tests.processes import is_gone
from tests.readme.served import ROOT, Shell, server_variables
from tests.waiting import poll_until, within

PASSWORD = "correct horse battery staple"
MAKE_RUN = "make run"
SERVES = "Pilothouse serves gRPC on "
# `.ci/run` itself runs these, before and after this test.
BY_CI = ("make lint", "make test test-all")


@dataclass
class Run:
    """`make run`, until it has printed the next command to try."""

    process: asyncio.subprocess.Process
    printed: list[str]

    @property
    def address(self) -> str:
        """The address that it serves on."""
        (line,) = [line for line in self.printed if line.startswith(SERVES)]
        return line.removeprefix(SERVES)

    @property
    def steps(self) -> list[str]:
        """The steps that were announced before it served."""
        before = self.printed[: self.printed.index(SERVES + self.address)]
        return [" ".join(line.split()) for line in before]

    async def interrupt(self) -> str:
        """Presses Ctrl-C, which a terminal sends to make and its children, and returns the further output."""
        assert self.process.stdout is not None
        os.killpg(self.process.pid, signal.SIGINT)
        rest = (await self.process.stdout.read()).decode()
        await self.process.wait()
        return rest


@asynccontextmanager
async def make_run(data: Path, root: Path = ROOT) -> AsyncIterator[Run]:
    """Runs `make run` in `root`, with its data in `data`."""
    variables = {
        "PILOTHOUSE_LISTEN": "127.0.0.1:0",
        "PILOTHOUSE_DATA_DIR": str(data),
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
    }
    process = await asyncio.create_subprocess_exec(
        *MAKE_RUN.split(),
        cwd=root,
        # Packages are compiled on import: compiling all of them would take 14 seconds of CPU time.
        env={**server_variables(data.parent), **variables, "MAKEFLAGS": "BYTECODE="},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A new session, whose only process group is the foreground's.
        start_new_session=True,
    )
    assert process.stdout is not None
    run = Run(process, [])
    try:
        async with within(60):
            while not run.printed or "audit tail" not in run.printed[-1]:
                line = (await process.stdout.readline()).decode()
                assert line, "\n".join(run.printed)
                run.printed.append(line.rstrip())
        yield run
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.mark.full(minutes=10)
async def test_make_run_on_a_new_clone_prints_its_steps_and_serves_until_ctrl_c(tmp_path: Path) -> None:
    """PostgreSQL, the simulated cluster and the server start, respond, and end with Ctrl-C.

    Each step prints a line, and a second start prints only its remaining steps.
    """
    tree, data = tmp_path / "tree", tmp_path / "data"
    tree.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, tree)
    for name in ("server", "client", "migrations"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    async with make_run(data, tree) as run:
        async with AsyncClient(run.address, username="admin", password=PASSWORD) as client:
            assert [cluster.name async for cluster in client.namespaces.list_clusters()] == ["local"]
        (noted,) = data.rglob("postmaster.pid")
        postgres = int(noted.read_text().split()[0])
        assert "draining" in await run.interrupt()
    await poll_until(lambda: is_gone(postgres), seconds=30, what="the end of PostgreSQL")
    environment_, packages, itself, made, migrated, *rest = run.steps
    assert re.fullmatch(r"environment makes \.venv with Python 3\.[\d.]+", environment_)
    assert re.fullmatch(r"packages installs the \d\d+ of requirements\.lock into \.venv", packages)
    assert itself == "packages installs Pilothouse itself into .venv"
    assert made == f"database makes and starts PostgreSQL in {data / 'postgres'}"
    assert re.fullmatch(r"database brings its schema up to date: migrations to apply: \d+", migrated)
    async with make_run(data, tree) as run:
        await run.interrupt()
    started, *rest_again = run.steps
    assert started == f"database starts PostgreSQL in {data / 'postgres'}"
    assert rest == rest_again
    assert rest == [f"cluster starts a simulated Kubernetes cluster, kept in {data}", "server starts"]


@pytest.mark.full(minutes=10)
async def test_make_proto_generates_the_committed_stubs(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "buf.yaml", "buf.gen.yaml"):
        shutil.copy2(ROOT / name, tree)
    for name in (".ci", "protos", "client"):
        shutil.copytree(ROOT / name, tree / name)
    (tree / ".venv").symlink_to(ROOT / ".venv")
    stub = Path("client/gen/pilothouse/container/v1/container_pb2.py")
    (tree / stub).write_text("# not what the protos say\n")
    await Shell("", tmp_path, directory_of_files=tree).run("make proto")
    assert (tree / stub).read_bytes() == (ROOT / stub).read_bytes()


@pytest.mark.full(minutes=10)
@pytest.mark.parametrize(
    "line",
    [
        'make test ARGS="tests/values"',
        ".venv/bin/pytest -q tests/values/test_quantity.py",
        ".venv/bin/pytest -q tests/values -k label",
    ],
)
async def test_the_documented_commands_run_some_tests(tmp_path: Path, line: str) -> None:
    """Runs the lines of CONTRIBUTING.md, with few tests in one process; `make test` would load all tests in six."""
    few = {"MAKEFLAGS": "PARALLEL=-n1", "PYTEST_ADDOPTS": "-k test_units_round_towards_more"}
    printed = await Shell("", tmp_path, few).run(line)
    assert re.search(r"\b[1-9]\d* passed", printed)


@pytest.mark.full(minutes=10)
async def test_make_soak_selects_the_long_tests_of_each_part_in_turn(tmp_path: Path) -> None:
    """A part that selects nothing fails, as pytest does."""
    files = "tests/promises/test_killed_server.py tests/promises/watches/test_campaign.py"
    shell = Shell("", tmp_path)
    printed = await shell.run(f"make soak PART='watches kills' ARGS='--collect-only --quiet {files}'")
    _, watches, kills = re.split(r"^soak: (?:watches|kills)$", printed, flags=re.MULTILINE)
    assert ("test_watches_lose_nothing" in watches, "test_watches_lose_nothing" in kills) == (True, False)
    assert ("test_killed_again_and_again" in watches, "test_killed_again_and_again" in kills) == (False, True)
    assert "deselected" in kills
    assert "for part in watches kills time hostile;" in await shell.run("make --dry-run soak")


async def test_make_soak_refuses_an_unknown_part(tmp_path: Path) -> None:
    printed = await Shell("", tmp_path).run("make soak PART=weather", succeeds=False)
    assert "the soak has no part weather; it has: watches kills" in printed


def test_ci_runs_the_commands_of_the_readme() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    # This program requests the tests.
    assert ".venv/bin/python .ci/run_tests.py" in lines
    lines.append(" ".join(run_path(str(ROOT / ".ci" / "run_tests.py"))["FIRST"]))
    for command in BY_CI:
        assert any(line == command or line.startswith(f"{command} ") for line in lines), command


@pytest.mark.parametrize(
    ("targets", "tiers"),
    [
        ("test", [""]),
        ("test-all", ["-m full "]),
        ("test test-all", ['-m "not soak and not system" ']),
        ("test-all test", ['-m "not soak and not system" ']),
        ("setup test", [""]),
    ],
)
async def test_both_tiers_together_are_one_run(tmp_path: Path, targets: str, tiers: list[str]) -> None:
    printed = await Shell("", tmp_path).run(f"make --dry-run {targets} ARGS=--maxfail=3")
    runs = re.findall(r"^\S*bin/pytest (.*)--numprocesses \d+ .*--maxfail=3$", printed, re.MULTILINE)
    assert runs == tiers, printed


def test_the_files_that_begin_a_run_exist() -> None:
    assert [name for name in FIRST if not (ROOT / "tests" / name).exists()] == []
