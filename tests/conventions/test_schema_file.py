"""The checks of the schema's two generated files, and of the locks of migrations, report their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_migrations import checksums
from tests.conventions import migrations, schema_file


@pytest.mark.full(minutes=3)
def test_a_schema_that_differs_from_the_migrations_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert schema_file.findings() == []
    right, other = schema_file.SCHEMA.read_text(), tmp_path / "schema.sql"
    other.write_text(right.replace("CREATE TABLE public.leases", "CREATE TABLE public.lease"))

    async def dumped() -> str:
        return right

    # The first call above has already dumped a database; another dump would only take time.
    monkeypatch.setattr(schema_file, "dump", dumped)
    monkeypatch.setattr(schema_file, "SCHEMA", other)
    (found,) = schema_file.findings()
    assert found == "migrations/schema.sql is not the schema that the migrations make: run `make schema`"


def test_a_wrong_checksum_is_replaced_unless_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    text = schema_file.CHECKSUMS.read_text()
    assert schema_file.written_checksums(text) == text
    newest = max(checksums.CHECKSUMS)
    right = checksums.CHECKSUMS[newest]
    monkeypatch.setitem(checksums.CHECKSUMS, newest, "0" * 64)
    assert schema_file.written_checksums(text.replace(right, "0" * 64)) == text
    # The checksum belongs to a release: it stays, and the check reports it.
    monkeypatch.setattr(checksums, "RELEASED", newest)
    assert "0" * 64 in schema_file.written_checksums(text)


@pytest.mark.parametrize(
    ("sql", "locks", "found"),
    [
        ("ALTER TABLE containers ADD COLUMN note text;", (), "alters containers"),
        ("ALTER TABLE containers ADD COLUMN note text;", ("containers",), ""),
        ("CREATE INDEX idx_x ON namespaces (id);", ("containers",), "alters namespaces"),
        ("CREATE TABLE made (id bigint);\nCREATE INDEX idx_made ON made (id);", (), ""),
        ("DROP INDEX idx_containers_pod_ip;", (), "drops an index"),
        ("DROP INDEX idx_containers_pod_ip;", ("containers",), ""),
        ("CREATE TRIGGER t AFTER INSERT ON containers EXECUTE FUNCTION f();", (), "alters containers"),
    ],
)
def test_a_table_that_is_altered_without_a_lock_is_reported(
    sql: str, locks: tuple[str, ...], found: str
) -> None:
    lines = list(migrations.unlocked([("0102", sql, locks)]))
    assert len(lines) == (1 if found else 0)
    assert found in "".join(lines)
