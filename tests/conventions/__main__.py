"""`make lint`: runs every check of form and convention in parallel, and prints the results in a fixed order.

All checks run even if some fail, so that one run shows every fault. The exit code is 1 if any check failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.conventions import migrations, pages, private_members, tables, words
from tests.conventions.checks import CHECKS
from tests.conventions.sources import ROOT, Source, load

PROGRAMS = Path(sys.executable).parent
CODE = [
    folder
    for folder in (
        "server",
        "client/pilothouse_client",
        "client/pilothouse_manifests",
        "migrations",
        "tests",
        "benchmarks",
    )
    if (ROOT / folder).is_dir()
]
TOOLING = [str(path.relative_to(ROOT)) for path in sorted((ROOT / ".ci").glob("*.py"))]

Outcome = tuple[bool, str]


def command(*arguments: str) -> Callable[[], Outcome]:
    """Returns a check that runs a program of the virtual environment, which must exit with 0."""

    def run() -> Outcome:
        environment = dict(os.environ, PATH=f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
        finished = subprocess.run(
            arguments,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return finished.returncode == 0, finished.stdout

    return run


@cache
def sources() -> Sequence[Source]:
    """Returns the project's files, which two steps share: parsing them takes five seconds."""
    return load()


def conventions() -> Outcome:
    found = [finding for check in (*CHECKS, *pages.CHECKS) for finding in check(sources())]
    return not found, "\n".join(found)


def plain_words() -> Outcome:
    found = list(words.over_limits(words.findings(sources()), words.LIMITS))
    return not found, "\n".join(found)


def private() -> Outcome:
    found = list(private_members.findings(sources()))
    return not found, "\n".join(found)


def schema() -> Outcome:
    found = list(tables.findings(tables.all_tables()))
    return not found, "\n".join(found)


def sql() -> Outcome:
    found = list(migrations.unlocked(migrations.all_locks()))
    found += migrations.findings(PROGRAMS / "squawk", migrations.rendered())
    return not found, "\n".join(found)


STEPS: list[tuple[str, Callable[[], Outcome]]] = [
    ("types (mypy --strict)", command("mypy", *CODE, *TOOLING)),
    (
        "style (ruff check; `ruff check --fix` mends some)",
        command("ruff", "check", "--output-format=concise", *CODE, *TOOLING),
    ),
    (
        "format (mend with `ruff format`)",
        command("ruff", "format", "--check", "--output-format=concise", *CODE, *TOOLING),
    ),
    ("imports (import-linter)", command("lint-imports", "--no-logo")),
    ("conventions (tests/conventions/checks.py, pages.py)", conventions),
    ("words (tests/conventions/words.py)", plain_words),
    ("private members (tests/conventions/private_members.py)", private),
    ("schema (tests/conventions/tables.py)", schema),
    ("migrations' SQL (squawk)", sql),
    (
        "schema.sql (write it with `make schema`)",
        command("python", "-m", "tests.conventions.schema_file", "check"),
    ),
    ("protos (buf lint)", command("buf", "lint")),
    (
        "protos' format (mend with `buf format -w protos`)",
        command("buf", "format", "-d", "--exit-code", "protos"),
    ),
    ("protos' compatibility (buf breaking)", command("python", ".ci/protos.py", "breaking")),
    (
        "limits (docs/limits.md equals flowcontrol/classes.py; mend with `make limits`)",
        command("python", ".ci/limits.py", "check"),
    ),
    (
        "workloads (docs/workloads.md equals pilothouse_manifests; mend with `make workloads`)",
        command("python", ".ci/workloads.py", "check"),
    ),
    (
        "command (docs/command.md equals the declared verbs; mend with `make command`)",
        command("python", ".ci/command_page.py", "check"),
    ),
    (
        "console (the page is built from client/console; mend with `make console`)",
        command("python", ".ci/console.py", "check"),
    ),
    ("stubs (client/gen equals what protos/ generates)", command("python", ".ci/protos.py", "check")),
]


def main() -> int:
    # buf needs the copied googleapis protos before any two of its checks run in parallel.
    prepared, output = command("python", ".ci/protos.py", "dependencies")()
    if not prepared:
        print(output)
        return 1
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = time.monotonic()
        for name, outcome in [(name, pool.submit(step)) for name, step in STEPS]:
            # A check that cannot run has failed; the others still report what they found.
            error = outcome.exception()
            right, output = (False, "".join(traceback.format_exception(error))) if error else outcome.result()
            print(f"{'ok    ' if right else 'FAILED'} {name}", flush=True)
            if not right:
                failed += 1
                print("\n".join(f"       {line}" for line in output.splitlines()), flush=True)
    print(f"{len(STEPS) - failed} passed, {failed} failed in {time.monotonic() - started:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
