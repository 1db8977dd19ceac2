"""Row 18 of the benchmarks still works: it is measured once, at a size at which its figures mean nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes import finished
from tests.readme.served import ROOT, server_variables
from tests.system.programs import program

pytestmark = pytest.mark.system(minutes=4)


async def test_the_row_of_the_console_has_all_figures(tmp_path: Path) -> None:
    program("chromium")
    pytest.importorskip("playwright.async_api", reason="needs playwright: see .ci/playwright.txt")
    words = (sys.executable, "-m", "benchmarks", "--rows", "18", "--smoke", "--directory", str(tmp_path))
    code, output, errors = await finished(*words, seconds=180.0, cwd=ROOT, env=server_variables(tmp_path))
    assert code == 0, output.decode() + errors.decode()
    for what in ("its first row", "changes a second", "memory of its tab", "open consoles"):
        assert what in output.decode()
    assert "not measured" not in output.decode()
