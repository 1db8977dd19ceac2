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
    ("0011", "require-concurrent-index-creation"): "the view of this index is made in the same migration",
    (
        "0018",
        "require-concurrent-index-creation",
    ): "a migration is one transaction; writers wait for half a second where there are 100,000 rows",
    ("0034", "require-concurrent-index-creation"): "a migration is one transaction, and namespaces are few",
    ("0018", "require-concurrent-index-deletion"): "they go at the end, a moment before the commit",
    ("0018", "renaming-object"): "no client calls an index by its name",
    ("0031", "ban-drop-table"): "no release has written to audit_seals or read it",
    (
        "0045",
        "ban-drop-function",
    ): "the new one takes the calls of the old one: what it has more has a default",
    ("0040", "ban-drop-function"): "no release has called app_operation_id",
    (
        "0032",
        "require-concurrent-index-creation",
    ): "the table has a row for each object, and the lock is short",
    ("0032", "require-concurrent-index-deletion"): "another one that begins alike has taken its place",
    ("0037", "require-concurrent-index-creation"): "api_keys is empty before this, and users are few",
    ("0037", "require-concurrent-index-deletion"): "api_keys is empty before this",
    (
        "0037",
        "constraint-missing-not-valid",
    ): "a migration is one transaction; the columns are new, and users few",
    ("0037", "adding-field-with-default"): "api_keys is empty before this",
    ("0014", "ban-drop-constraint"): "a server of before writes only words that the constraint allowed",
    ("0038", "ban-drop-constraint"): "the table is empty: no release has written to it",
    ("0038", "constraint-missing-not-valid"): "the table is empty",
    ("0038", "require-concurrent-index-creation"): "the table is empty",
    ("0038", "require-concurrent-index-deletion"): "the table is empty, and another index begins alike",
    (
        "0015",
        "ban-create-domain-with-constraint",
    ): "the domains are new, and columns of this migration alone use them",
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
