"""Functions: a migration replaces their texts and restores the former ones.

A differing text counts as pending.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from pilothouse_migrations import checksums, functions, runner, schema
from tests.conftest import Database
from tests.conventions import new_migration, schema_file
from tests.migrations.catalogue import snapshot
from tests.migrations.stand_in import StandIn, standing_in, text_of

_NAME = "current_history"
_CHANGED = text_of(_NAME).replace("WHERE id = 1", "WHERE id = 1 LIMIT 1")
_NEW = "CREATE OR REPLACE FUNCTION made_for_a_test()\n    RETURNS integer\n    LANGUAGE sql\nAS $$\nSELECT 1\n$$;\n"


async def _body(owner: asyncpg.Connection, name: str = _NAME) -> str | None:
    body: str | None = await owner.fetchval("SELECT prosrc FROM pg_proc WHERE proname = $1", name)
    return body


async def _noted(owner: asyncpg.Connection, name: str = _NAME) -> tuple[str, str] | None:
    row = await owner.fetchrow("SELECT checksum, version FROM schema_functions WHERE name = $1", name)
    return None if row is None else (row[0], row[1])


async def test_a_migration_changes_functions_and_restores_all_of_them(
    database: Database, tmp_path: Path
) -> None:
    dsn = database.maintenance_dsn
    texts = {_NAME: _CHANGED, "made_for_a_test": _NEW, "drop_old_partitions": None}
    async with database.owner() as owner:
        before, noted = (
            await snapshot(owner),
            await owner.fetch("SELECT * FROM schema_functions ORDER BY name"),
        )
        # The second migration changes again what the first one changed.
        again = StandIn(texts={_NAME: _CHANGED.replace("LIMIT 1", "LIMIT 2")})
        with standing_in(tmp_path, StandIn(texts=texts), again) as (first, second):
            assert await runner.upgrade(dsn, first) == [first]
            assert "LIMIT 1" in (await _body(owner) or "")
            assert await _noted(owner) == (functions.checksum(_CHANGED), first)
            assert await _body(owner, "made_for_a_test") == "\nSELECT 1\n"
            assert await _body(owner, "drop_old_partitions") is None
            assert await _noted(owner, "drop_old_partitions") is None

            assert await runner.upgrade(dsn) == [second]
            assert "LIMIT 2" in (await _body(owner) or "")
            assert await schema.pending_migrations(dsn) == []
            assert await runner.downgrade(dsn, first) == [second]
            assert "LIMIT 1" in (await _body(owner) or "")
            assert await runner.downgrade(dsn, runner.revisions()[-3]) == [first]
        assert await snapshot(owner) == before
        assert await owner.fetch("SELECT * FROM schema_functions ORDER BY name") == noted


async def test_a_new_database_gets_each_text_at_its_migration(
    bare_database: Database, tmp_path: Path
) -> None:
    dsn = bare_database.maintenance_dsn
    with standing_in(tmp_path, StandIn(texts={_NAME: _CHANGED, "made_for_a_test": _NEW})) as (added,):
        async with bare_database.owner() as owner:
            await runner.upgrade(dsn, runner.revisions()[-2])
            assert "LIMIT" not in (await _body(owner) or "")
            assert await _body(owner, "made_for_a_test") is None
            assert await runner.upgrade(dsn) == [added]
            assert "LIMIT 1" in (await _body(owner) or "")
            await schema.check(dsn)


async def test_a_differing_text_is_pending_and_no_error(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens while the baseline is edited: the release has another text under the same migration."""
    dsn = database.maintenance_dsn
    async with database.owner() as owner:
        await owner.execute("UPDATE schema_functions SET checksum = repeat('0', 64) WHERE name = $1", _NAME)
        body = (await _body(owner) or "").replace("id = 1", "id = 1 LIMIT 3")
        await owner.execute(
            f"CREATE OR REPLACE FUNCTION current_history() RETURNS uuid LANGUAGE sql AS '{body}'"
        )
        with pytest.raises(
            schema.PendingMigrationsError, match=f"not applied: {_NAME}; run `pilothouse migrate up`"
        ):
            await schema.check(dsn)
        assert await runner.upgrade(dsn) == [_NAME]
        assert "LIMIT" not in (await _body(owner) or "")
        await schema.check(dsn)


async def test_a_missing_function_is_pending(database: Database) -> None:
    async with database.owner() as owner:
        await owner.execute("DELETE FROM schema_functions WHERE name = $1", _NAME)
        assert await schema.pending_migrations(database.maintenance_dsn) == [_NAME]


async def test_an_older_release_leaves_a_newer_text_alone(database: Database, tmp_path: Path) -> None:
    dsn = database.maintenance_dsn
    newer = StandIn(texts={_NAME: _CHANGED, "drop_old_partitions": None}, serves_from="0.1.0")
    with standing_in(tmp_path, newer):
        await runner.upgrade(dsn)
    async with database.owner() as owner:
        # The previous release starts, and migrates.
        await schema.check(dsn)
        assert await runner.upgrade(dsn) == []
        assert "LIMIT 1" in (await _body(owner) or "")
        assert await _body(owner, "drop_old_partitions") is None
        with pytest.raises(schema.UnknownRevisionError, match="migrate down with the release that made it"):
            await runner.downgrade(dsn, "base")


async def test_a_release_that_a_schema_does_not_serve_is_refused(database: Database, tmp_path: Path) -> None:
    with standing_in(tmp_path, StandIn(serves_from="99.0")):
        await runner.upgrade(database.maintenance_dsn)
    with pytest.raises(schema.UnknownRevisionError, match=r"it serves releases from 99\.0 on"):
        await schema.check(database.maintenance_dsn)


async def test_no_function_has_two_signatures(database: Database) -> None:
    async with database.owner() as owner:
        assert await _with_two_signatures(owner) == []
        # The control.
        await owner.execute(
            "CREATE FUNCTION current_history(p integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'"
        )
        assert await _with_two_signatures(owner) == ["current_history"]


async def _with_two_signatures(owner: asyncpg.Connection) -> list[str]:
    rows = await owner.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace GROUP BY 1 HAVING count(*) > 1"
    )
    return [row[0] for row in rows]


async def test_recorded_functions_equal_the_existing_ones(database: Database) -> None:
    async with database.owner() as owner:
        noted = {row[0]: (row[1], row[2]) for row in await owner.fetch("SELECT * FROM schema_functions")}
        present = await owner.fetch("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        assert noted == functions.all_at(runner.head())
        assert {row[0] for row in present} == set(noted)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., list[str]]:
    """Returns the findings of the check of files, if one file has another text."""

    def findings(name: str, text: str, *, released: str = "", **listed: tuple[str, str]) -> list[str]:
        with standing_in(tmp_path, StandIn(), unnamed={name: text}):
            return list(schema_file.function_findings({**checksums.FUNCTIONS, **listed}, released))

    return findings


def test_a_comment_at_the_head_of_a_file_is_no_change(copied: Callable[..., list[str]]) -> None:
    """The comment does not belong to the function's text."""
    baseline = runner.revisions()[0]
    assert copied(_NAME, f"-- Another word.\n{text_of(_NAME)}", released=baseline) == []


@pytest.mark.parametrize(
    ("released", "todo"), [("0101", "no migration names it; run `make migration"), ("", "run `make schema`")]
)
def test_the_next_step_for_a_changed_file_is_named(
    copied: Callable[..., list[str]], released: str, todo: str
) -> None:
    (found,) = copied(_NAME, _CHANGED, released=released)
    assert found.startswith(f"functions/{_NAME}.sql changed: {todo}")


def test_a_file_with_two_functions_is_found(copied: Callable[..., list[str]]) -> None:
    found = copied(_NAME, f"{text_of(_NAME)}\n{_NEW}")
    assert (
        f"functions/{_NAME}.sql holds ['{_NAME}', 'made_for_a_test']: a file holds one function" in found[-1]
    )


def test_a_new_migration_has_the_former_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former texts are those that checksums.py lists, also if the file was edited before."""
    made, former = new_migration.make("sort_history", [_NAME, "made_for_a_test"], tmp_path)
    number = f"{int(runner.head()) + 1:04}"
    assert made.name == f"v{number}_sort_history.py"
    assert 'replaces = ("current_history", "made_for_a_test",)' in made.read_text()
    assert former == tmp_path / f"{number}_sort_history" / "before" / f"{_NAME}.sql"
    assert former.read_text() == text_of(_NAME)
    subprocess.run(["python3", "-m", "py_compile", made], check=True)
    with pytest.raises(ValueError, match="lower-case words"):
        new_migration.make("No Name", [], tmp_path)
    monkeypatch.setitem(checksums.FUNCTIONS, _NAME, ("0" * 64, "0101"))
    with pytest.raises(ValueError, match=r"both differ from checksums\.py"):
        new_migration.make("again", [_NAME], tmp_path)
