"""squawk over the SQL that the migrations send: no statement that locks out a running server for long.

The SQL is rendered as the runner sends it, in one transaction with its time limits set. Rules of taste that
the seed's columns settle already (varchar, integer) are off; the others hold, and an exception is written
down with its reason.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pilothouse_migrations import runner

OLDEST_SUPPORTED = "15.0"
SETTLED = "prefer-text-field,prefer-bigint-over-int,prefer-bigint-over-smallint,prefer-robust-stmts"
LIMITS = "SET lock_timeout = '5s'; SET statement_timeout = '600s';\n"
# (revision, rule): why it is right there
EXCEPTIONS = {
    ("0101", "ban-create-domain-with-constraint"): "no server runs on the database yet",
    ("0101", "require-concurrent-index-creation"): "no server runs on the database yet",
}


def rendered() -> list[tuple[str, str]]:
    """Revision and SQL of each migration, oldest first."""
    return [(revision, runner.render(revision)) for revision in runner.revisions()]


def findings(squawk: Path, migrations: Iterable[tuple[str, str]]) -> Iterator[str]:
    """One line for each thing that squawk minds and no exception allows."""
    with tempfile.TemporaryDirectory() as folder:
        for revision, sql in migrations:
            Path(folder, f"{revision}.sql").write_text(LIMITS + sql, "utf-8")
        finished = subprocess.run(
            [
                squawk,
                "--assume-in-transaction",
                f"--pg-version={OLDEST_SUPPORTED}",
                f"--exclude={SETTLED}",
                "--reporter=json",
                *sorted(Path(folder).glob("*.sql")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if not finished.stdout.strip():
        if finished.returncode:
            yield f"squawk could not run: {finished.stderr.strip()}"
        return
    for found in json.loads(finished.stdout):
        revision = Path(found["file"]).stem
        if (revision, found["rule_name"]) not in EXCEPTIONS:
            yield f"migration {revision}: {found['rule_name']}: {found['message']} {found.get('help') or ''}"
