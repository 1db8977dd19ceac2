"""What a stranger types after `make`, typed.

`make test` and `make lint` are what .ci/run does, and would run this test again; the long ones are cut short by `ARGS`,
which the Makefile hands on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from pilothouse_client import AsyncClient
from tests.harness import eventually
from tests.readme.served import ROOT, Shell, environment

PASSWORD = "correct horse battery staple"
MAKE_RUN = "make run"
# By .ci/run itself, before and after this test.
BY_CI = ("make lint", "make test", "make test-all")


async def test_make_run_serves_until_ctrl_c(tmp_path: Path) -> None:
    """The whole of it: PostgreSQL, the simulated cluster and the server come up, answer, and end with Ctrl-C."""
    data = tmp_path / "data"
    variables = {
        "PILOTHOUSE_LISTEN": "127.0.0.1:0",
        "PILOTHOUSE_DATA_DIR": str(data),
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
    }
    process = await asyncio.create_subprocess_exec(
        *MAKE_RUN.split(),
        cwd=ROOT,
        env={**environment(tmp_path), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A terminal's Ctrl-C reaches all of its foreground group: make and what it runs.
        start_new_session=True,
    )
    assert process.stdout is not None
    printed: list[str] = []
    try:
        async with asyncio.timeout(120):
            while not printed or "audit tail" not in printed[-1]:
                printed.append((await process.stdout.readline()).decode())
                assert printed[-1], "".join(printed)
            address = printed[0].removeprefix("Pilothouse serves gRPC on ").strip()
            async with AsyncClient(address, username="admin", password=PASSWORD) as client:
                assert [cluster.name async for cluster in client.namespaces.list_clusters()] == ["local"]
            (noted,) = data.rglob("postmaster.pid")
            postgres = int(noted.read_text().split()[0])
            os.killpg(process.pid, signal.SIGINT)
            rest = (await process.stdout.read()).decode()
            await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert "draining" in rest

    async def ended() -> bool:
        return not Path(f"/proc/{postgres}").exists()

    await eventually(ended, seconds=30, what="the end of PostgreSQL")


async def test_make_proto_makes_the_committed_stubs(tmp_path: Path) -> None:
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


async def test_make_bench_prints_its_table(tmp_path: Path) -> None:
    printed = await Shell("", tmp_path).run("make bench ARGS='--rows 12 --quick --runs 1'")
    assert "start to first answered call" in printed
    assert "not measured" not in printed


@pytest.mark.full
@pytest.mark.parametrize("parts", ["", "PART=watches", "PART=kills"])
async def test_make_soak_selects_the_long_tests(tmp_path: Path, parts: str) -> None:
    """A part that selects nothing fails, as pytest does."""
    printed = await Shell("", tmp_path).run(f"make soak {parts} ARGS='--collect-only --quiet'")
    assert ("test_no_event_is_lost_in_a_long_race" in printed) is (parts != "PART=kills")
    assert ("test_killed_again_and_again" in printed) is (parts != "PART=watches")
    assert "deselected" in printed


async def test_make_soak_refuses_an_unknown_part(tmp_path: Path) -> None:
    printed = await Shell("", tmp_path).run("make soak PART=weather", succeeds=False)
    assert "the soak has no part weather; it has: watches kills" in printed


def test_what_ci_does_is_what_the_readme_says() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in BY_CI:
        assert command in lines
