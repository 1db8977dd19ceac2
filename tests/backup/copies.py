"""Backups of a test's database, and databases to restore them into."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pilothouse_server.app import SEALED
from pilothouse_server.backup import making, restoring
from pilothouse_server.backup.making import Plan
from pilothouse_server.backup.manifests import Backup
from pilothouse_server.backup.restoring import Order
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection, new_database


async def back_up(database: Database, folder: Path, **changes: Any) -> Backup:
    """Backs up a database."""
    return await making.make(Plan(dsn=database.maintenance_dsn, folder=folder, sealed=SEALED, **changes))


async def restore(path: Path, database: Database, **changes: Any) -> Backup:
    """Restores a backup into a database, as an administrator who creates the roles."""
    return await restoring.restore(Order(path=path, dsn=database.admin_dsn, makes_roles=True, **changes))


@asynccontextmanager
async def empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """Yields a database in which nothing is prepared."""
    async with new_database(postgres) as made:
        yield made


async def objects_in(database: Database) -> int:
    """Returns the number of tables, views, indexes and sequences in its schema public."""
    async with connection(database.admin_dsn) as admin:
        return int(
            await admin.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        )


def copied(path: Path, to: Path) -> Path:
    """Returns a copy of a backup, to be damaged."""
    copy = to / path.parent.name / path.name
    shutil.copytree(path, copy)
    return copy


def flip(file: Path, at: int, bit: int = 0) -> None:
    """Flips one bit of a file."""
    with file.open("r+b") as opened:
        opened.seek(at)
        (byte,) = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte ^ (1 << bit)]))
