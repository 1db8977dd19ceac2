"""`make schema`: writes `migrations/schema.sql` and `migrations/pilothouse_migrations/checksums.py`.

schema.sql is a dump, made with the embedded PostgreSQL's pg_dump, of a database with all migrations. It has no
partitions, because they depend on the day. The lint step `schema.sql` makes both files again and compares them.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pilothouse_migrations import checksums, functions, runner
from pilothouse_migrations.roles import MAINTENANCE, ensure_roles
from pilothouse_server.backup import programs
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conventions.sources import ROOT

SCHEMA = ROOT / "migrations" / "schema.sql"
CHECKSUMS = ROOT / "migrations" / "pilothouse_migrations" / "checksums.py"
_HEAD = """-- The schema, written by `make schema` from the migrations. To change it, change those: see CONTRIBUTING.md.
"""
# Without this key, pg_dump generates a new one for each dump.
_KEY = "pilothouse"
_LINE_CHARACTERS = 110
_PARTITIONS = ("*_y????m*", "*_r[0-9]*")
_SET_BY_THE_PROGRAM = re.compile(r"-- Dumped (?:from|by) .*\n")
_FUNCTION = re.compile(r"^CREATE OR REPLACE FUNCTION (\w+)\(", re.MULTILINE)


async def dump() -> str:
    """Returns the text of schema.sql as it should be."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-schema-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(Path(folder, "postgres"), settings={"fsync": "off"})
        await server.start()
        try:
            await ensure_roles(server.dsn())
            await runner.upgrade(server.dsn("postgres", MAINTENANCE))
            return await dump_of(server.dsn())
        finally:
            await server.stop()


async def dump_of(dsn: str) -> str:
    """Returns the schema of a database in the form of schema.sql."""
    found = await programs.find(180000)
    words = ["--schema-only", "--schema=public", "--no-owner", f"--restrict-key={_KEY}", f"--dbname={dsn}"]
    finished = await asyncio.to_thread(
        subprocess.run,
        [found.path("pg_dump"), *words, *(f"--exclude-table={pattern}" for pattern in _PARTITIONS)],
        capture_output=True,
        text=True,
        check=True,
    )
    return _HEAD + _SET_BY_THE_PROGRAM.sub("", finished.stdout)


def written_checksums(source: str) -> str:
    """Returns the text of checksums.py as it should be; entries of a release stay as in `source`."""
    released = checksums.RELEASED
    migrations = {**runner.checksums(), **_kept(checksums.CHECKSUMS, released)}
    names = functions.all_at(runner.head())
    kept = {name: entry for name, entry in checksums.FUNCTIONS.items() if entry[1] <= released}
    texts = {name: kept.get(name, entry) if entry[1] <= released else entry for name, entry in names.items()}
    lines = [f'    "{version}": "{found}",' for version, found in migrations.items()]
    source = re.sub(r"(CHECKSUMS: Final = \{\n).*?(\}\n)", rf"\1{_joined(lines)}\2", source, flags=re.DOTALL)
    lines = [_entry(name, found, version) for name, (found, version) in sorted(texts.items())]
    return re.sub(
        r"(FUNCTIONS: Final\[dict\[str, tuple\[str, str\]\]\] = \{)\n?.*\}\n",
        rf"\1\n{_joined(lines)}}}\n",
        source,
        flags=re.DOTALL,
    )


def _entry(name: str, found: str, version: str) -> str:
    """Returns an entry of FUNCTIONS, on one line or broken as `ruff format` breaks it."""
    line = f'    "{name}": ("{found}", "{version}"),'
    broken = f'    "{name}": (\n        "{found}",\n        "{version}",\n    ),'
    return line if len(line) <= _LINE_CHARACTERS else broken


def _kept(entries: Mapping[str, str], released: str) -> dict[str, str]:
    return {version: entry for version, entry in entries.items() if version <= released}


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def function_findings(
    listed: Mapping[str, tuple[str, str]] = checksums.FUNCTIONS, released: str = checksums.RELEASED
) -> Iterator[str]:
    """Yields functions that changed without a migration that names them, and files with another function."""
    wanted = functions.all_at(runner.head())
    for name, entry in wanted.items():
        if name not in listed:
            yield f"functions/{name}.sql is not in checksums.py: run `make schema`"
        elif entry != listed[name]:
            in_a_release = listed[name][1] <= released and entry[1] == listed[name][1]
            todo = "run `make schema`"
            if in_a_release:
                todo = f"no migration names it; run `make migration NAME=... REPLACES={name}`"
            yield f"functions/{name}.sql changed: {todo}"
    yield from (f"checksums.py lists {name}, which has no file" for name in listed if name not in wanted)
    for path in sorted(functions.SOURCES.functions.glob("*.sql")):
        if (found := _FUNCTION.findall(path.read_text("utf-8"))) != [path.stem]:
            yield f"functions/{path.name} holds {found}: a file holds one function, of its own name"


def findings() -> list[str]:
    """Returns the faults of the two files, a line each."""
    found = list(function_findings())
    if runner.checksums() != checksums.CHECKSUMS:
        changed = [name for name, each in runner.checksums().items() if checksums.CHECKSUMS.get(name) != each]
        found.append(f"migrations {', '.join(changed)} are not as in checksums.py: run `make schema`")
    if not SCHEMA.exists() or asyncio.run(dump()) != SCHEMA.read_text("utf-8"):
        found.append("migrations/schema.sql is not the schema that the migrations make: run `make schema`")
    return found


def main(words: list[str]) -> int:
    """Writes both files; with the argument `check`, prints their faults instead."""
    if words == ["check"]:
        found = findings()
        print("\n".join(found))
        return 1 if found else 0
    CHECKSUMS.write_text(written_checksums(CHECKSUMS.read_text("utf-8")), "utf-8")
    SCHEMA.write_text(asyncio.run(dump()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
