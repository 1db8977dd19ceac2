"""The command reports whether each backup is encrypted: when it creates, lists and verifies one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from pilothouse_server.backup.schedule import back_up_if_due
from pilothouse_server.backup.sealing import make_key_file
from pilothouse_server.cli.backup import backup
from tests.backup.test_schedule import schedule
from tests.conftest import Database


async def said(database: Database, *words: str) -> str:
    """Returns the output of `pilothouse backup`, from both streams."""
    variables: dict[str, str | None] = {name: None for name in os.environ if name.startswith("PILOTHOUSE_")}
    variables |= {"PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn}
    result = await asyncio.to_thread(CliRunner().invoke, backup, list(words), env=variables)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.full
@pytest.mark.parametrize("encrypted", [True, False])
async def test_the_command_reports_whether_a_backup_is_encrypted(
    database: Database, tmp_path: Path, encrypted: bool
) -> None:
    folder, key_file = ["--directory", str(tmp_path / "backups")], tmp_path / "backup.key"
    keyed = ["--key-file", str(key_file)] if encrypted else []
    if encrypted:
        make_key_file(key_file)
    heard = [await said(database, *folder, *keyed)]
    (path,) = (tmp_path / "backups").iterdir()
    assert ("not encrypted" in heard[0]) is not encrypted
    heard += [await said(database, "list", *folder), await said(database, "verify", str(path), *keyed)]
    for each in heard[1:]:
        assert ("encrypted under" in each) is encrypted
        assert ("not encrypted" in each) is not encrypted


@pytest.mark.full
async def test_an_unencrypted_backup_on_schedule_logs_a_warning(database: Database, tmp_path: Path) -> None:
    with capture_logs() as lines:
        await back_up_if_due(schedule(database, tmp_path / "backups"))
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "a backup was made and is not encrypted")
    ]
