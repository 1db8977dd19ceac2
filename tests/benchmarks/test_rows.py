"""Each row of the table still works: it is measured once, at a size at which its figures mean nothing.

The programs are those of `make bench` and `make profile`. Only their servers and loads are forked, which saves half
of the time (`forked.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.rows.every import ROWS

from tests.prepared import memory
from tests.processes import finished
from tests.readme.served import ROOT, Shell, server_variables

pytestmark = pytest.mark.full(minutes=30)

FORKED = (sys.executable, "-m", "tests.benchmarks.forked")
# The reasons for which a row may have no figure here.
_NOT_HERE = ("etcd is not installed", "no such option")


async def test_each_row_prints_a_figure(tmp_path: Path) -> None:
    page = tmp_path / "table.md"
    code, output, errors = await finished(
        *(*FORKED, "benchmarks", "--smoke", "--markdown", str(page)),
        # In memory nothing is flushed, so the run takes a third of the time; the figures mean nothing here anyway.
        *("--directory", str(memory() or tmp_path)),
        seconds=400.0,
        cwd=ROOT,
        env=server_variables(tmp_path),
    )
    assert code == 0, output.decode() + errors.decode()
    assert "start to first answered call" in output.decode()
    lines = page.read_text().splitlines()
    for name, row in ROWS.items():
        if row.usual:
            found = [line for line in lines if line.startswith(f"| {row.printed or name} |")]
            why = [line for line in lines if line.startswith(f"- row {name}, ") and "not measured" in line]
            assert found or any(reason in line for line in why for reason in _NOT_HERE), f"row {name}: {why}"
            assert all(any(reason in line for reason in _NOT_HERE) for line in why)
    (head,) = [line for line in lines if "Linux" in line]
    assert "cores" in head
    assert any("PostgreSQL 1" in line and "grpcio" in line for line in lines)


async def test_a_profile_has_layers_and_statements(tmp_path: Path) -> None:
    code, output, errors = await finished(
        *(*FORKED, "benchmarks.profile", "--row", "2", "--seconds", "0.3", "--containers", "100"),
        cwd=ROOT,
        env=server_variables(tmp_path),
    )
    assert code == 0, output.decode() + errors.decode()
    for words in (
        "server, ",
        "PostgreSQL",
        "gRPC and event loop",
        "handler and rules",
        "audit",
        "create_container",
    ):
        assert words in output.decode()


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("make bench ARGS='--smoke --rows 1,12'", "python -m benchmarks --smoke --rows 1,12"),
        ("make profile ROW=2 ARGS='--seconds 1'", "python -m benchmarks.profile --row 2 --seconds 1"),
    ],
)
async def test_make_starts_the_program(tmp_path: Path, line: str, program: str) -> None:
    printed = await Shell("", tmp_path).run(f"{line} --dry-run")
    assert printed.splitlines()[-1].endswith(program)
