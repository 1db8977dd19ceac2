"""The SQL of migrations: no statement may block a running server for long, and every lock is taken first.

squawk reads the SQL as the runner sends it: in one transaction with its time limits set, or without a transaction
where it builds indexes CONCURRENTLY. Rules of taste that the present columns settle already (varchar, integer) are
off; the other rules apply, and each exception is listed with its reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pilothouse_migrations import runner

OLDEST_SUPPORTED = "15.0"
SETTLED = "prefer-text-field,prefer-bigint-over-int,prefer-bigint-over-smallint,prefer-robust-stmts"
LIMITS = "SET lock_timeout = '5s'; SET statement_timeout = '600s';\n"
# (revision, rule): why the exception is right there.
EXCEPTIONS = {
    ("0101", "ban-create-domain-with-constraint"): "no server runs on the database yet",
    ("0101", "require-concurrent-index-creation"): "no server runs on the database yet",
    ("0102", "ban-drop-constraint"): "the constraint that takes its place allows more",
    ("0113", "ban-drop-constraint"): "the constraint that takes its place allows more",
    ("0127", "ban-drop-view"): "the transaction makes it again, with the same columns",
    ("0127", "require-concurrent-index-creation"): "nobody sees the view before the transaction ends",
    ("0130", "ban-drop-constraint"): "the constraint that takes its place allows more",
}

_ALTERS = re.compile(
    r"^(?:ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(\w+)|CREATE (?:UNIQUE )?INDEX \w+ ON (?:ONLY )?(\w+)"
    r"|CREATE TRIGGER \w+ [^;]*? ON (\w+)|DROP TABLE (?:IF EXISTS )?(\w+)|DROP TRIGGER \w+ ON (\w+))",
    re.MULTILINE,
)
_CREATES = re.compile(r"^CREATE (?:TABLE|MATERIALIZED VIEW) (\w+)", re.MULTILINE)
_DROPS_INDEX = re.compile(r"^DROP INDEX", re.MULTILINE)


def rendered() -> list[tuple[str, str]]:
    """Returns the revision and the SQL of each migration, oldest first."""
    return [(revision, runner.render(revision)) for revision in runner.revisions()]


def unlocked(migrations: Iterable[tuple[str, str, Collection[str]]]) -> Iterator[str]:
    """Yields the tables that a migration alters but does not name in `locks`; takes id, SQL and `locks` of each."""
    for revision, sql, locks in migrations:
        altered = {name for match in _ALTERS.finditer(sql) for name in match.groups() if name}
        missing = sorted(altered - set(_CREATES.findall(sql)) - set(locks))
        if missing:
            yield f"migration {revision} alters {', '.join(missing)}: name them in its `locks`"
        elif _DROPS_INDEX.search(sql) and not locks:
            yield f"migration {revision} drops an index: name its table in its `locks`"


def all_locks() -> list[tuple[str, str, Collection[str]]]:
    """Returns id, SQL and `locks` of each single-transaction migration after the baseline."""
    return [
        (revision, runner.render(revision) + runner.render(revision, down=True), runner.locks(revision) or ())
        for revision in runner.revisions()[1:]
        if runner.locks(revision) is not None
    ]


def findings(squawk: Path, migrations: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yields one line for each finding of squawk that no exception allows."""
    given = list(migrations)
    apart = [each for each in given if "CONCURRENTLY" in each[1]]
    yield from _findings(squawk, [each for each in given if each not in apart], "--assume-in-transaction")
    if apart:
        yield from _findings(squawk, apart)


def _findings(squawk: Path, migrations: Iterable[tuple[str, str]], *words: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for revision, sql in migrations:
            Path(folder, f"{revision}.sql").write_text(LIMITS + sql, "utf-8")
        finished = subprocess.run(
            [
                squawk,
                *words,
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
