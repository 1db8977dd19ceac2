"""The programs of docs/cookbook.md run exactly as printed, each in a namespace of its own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse_client.testing import PilothouseUnderTest, serving
from tests.readme.served import ROOT
from tests.waiting import patient

pytestmark = pytest.mark.full(minutes=4)
_PROGRAM = re.compile(r"^## (.+?)\n.*?^```python\n(.+?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = dict(_PROGRAM.findall((ROOT / "docs/cookbook.md").read_text(encoding="utf-8")))
# A text in the output of each program; the last program is a test.
SAID = {
    "Deploy, and wait until it runs": "web 2",
    "Release, and roll back if it does not run": "rolled back: shop",
    "Restart everything with a label": "b ",
    "Follow changes": "SYNCED",
    "Wait for several, with a local copy": "'payments': 1",
    "Many at once, with asyncio": "web-4 runs",
    "Read a log": "web-",
    "Show people what is wrong with their input": "CONTAINER_NOT_FOUND",
    "Give a program a secret": "database ''",
    "Who changed what": "admin scale web",
    "Test programs of your own": "1 passed",
}


def _run(server: PilothouseUnderTest, program: Path, environment: dict[str, str]) -> str:
    variables = {**os.environ, **environment, "PILOTHOUSE_NAMESPACE": server.new_namespace()}
    is_test = "def test_" in program.read_text(encoding="utf-8")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull] if is_test else []
    ended = subprocess.run(
        [sys.executable, *words, str(program)],
        env=variables,
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=patient(120),
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


async def test_the_programs_of_the_cookbook_work(tmp_path: Path) -> None:
    assert SAID.keys() == PROGRAMS.keys()
    assert all(len(text.splitlines()) <= 30 for text in PROGRAMS.values())

    def run_all() -> None:
        with serving(tmp_path) as server:
            environment = server.environment
            for number, (title, text) in enumerate(PROGRAMS.items()):
                program = tmp_path / f"test_program_{number}.py"
                program.write_text(text, encoding="utf-8")
                assert SAID[title] in _run(server, program, environment), title

    await asyncio.to_thread(run_all)
