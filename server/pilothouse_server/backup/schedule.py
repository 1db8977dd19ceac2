"""Scheduled backups, as a job of the periodic work (`store.periodic`), which one server at a time does.

The newest backup in the folder decides whether another one is due, not the start of a server: if it is younger than the
period, nothing is done. So a restart causes no further backup. If several servers share a folder, the first one makes
the backup that is due.

After each backup the job removes backups that are older than the retention, and unfinished ones that began a day ago.
It keeps the newest, however old, and any folder whose manifest it cannot read. A backup with a time in the future, from
a wrong clock, does not prevent others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Gauge

from pilothouse_server.backup import making, manifests
from pilothouse_server.backup.making import Plan
from pilothouse_server.backup.manifests import Backup
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.noun_tables import EnvelopeTable
from pilothouse_server.store.periodic import Periodic, earlier_now
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 600.0
NEWEST = Gauge(
    "pilothouse_backup_newest_timestamp_seconds", "Time of the newest backup, in seconds since 1970."
)
_UNFINISHED_KEPT: Final = timedelta(days=1)
# Clocks of servers that share a folder differ a little.
_AHEAD: Final = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class BackupSchedule:
    """The period of backups, and the time that each backup is kept."""

    plan: Plan
    period: timedelta
    kept: timedelta
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def scheduled(settings: Settings, store: Store, sealed: Sequence[EnvelopeTable]) -> Periodic:
    """Returns the job that makes backups according to the settings; `sealed` are the tables with envelopes."""
    assert settings.backup_dir is not None
    schedule = BackupSchedule(
        plan=Plan(
            dsn=settings.maintenance_database_url or settings.database_url,
            folder=settings.backup_dir,
            key_file=settings.backup_key_file,
            sealed=sealed,
        ),
        period=timedelta(hours=settings.backup_period_hours),
        kept=timedelta(days=settings.backup_retention_days),
    )

    async def back_up() -> None:
        now = await earlier_now(store)
        await back_up_if_due(replace(schedule, now=lambda: now))

    return Periodic("back up", LOOK_SECONDS, back_up)


async def back_up_if_due(schedule: BackupSchedule) -> Backup | None:
    """Makes a backup if one is due, and removes those that are too old. Raises as `making.make`."""
    now, disk = schedule.now(), schedule.plan.disk
    newest = await disk.answer(_newest, schedule.plan.folder, now)
    if newest is not None:
        NEWEST.set(newest.manifest.created_at.timestamp())
        if newest.manifest.created_at > now - schedule.period:
            return None
    made = await making.make(schedule.plan, now)
    NEWEST.set(made.manifest.created_at.timestamp())
    if made.manifest.encrypted_under:
        log.info("a backup was made", path=str(made.path), bytes=made.bytes)
    else:
        log.warning("a backup was made and is not encrypted", path=str(made.path), bytes=made.bytes)
    for path in await disk.answer(_old, schedule, now):
        await disk.answer(_remove, schedule.plan.folder, path)
        log.info("an old backup was removed", path=str(path))
    return made


def _newest(folder: Path, now: datetime) -> Backup | None:
    if not folder.is_dir():
        return None
    found = [each for each in manifests.found_in(folder) if isinstance(each, Backup)]
    complete = [each for each in found if each.manifest.created_at <= now + _AHEAD]
    if len(complete) < len(found):
        log.warning("backups have times in the future: was a clock wrong?", folder=str(folder))
    return max(complete, key=lambda each: each.manifest.created_at, default=None)


def _old(schedule: BackupSchedule, now: datetime) -> list[Path]:
    folder, oldest = schedule.plan.folder, now - schedule.kept
    newest = _newest(folder, now)
    old = [
        each.path
        for each in manifests.found_in(folder)
        if isinstance(each, Backup) and each.manifest.created_at < oldest and each != newest
    ]
    begun = now - _UNFINISHED_KEPT
    old += [path for path in manifests.left_unfinished(folder) if path.stat().st_mtime < begun.timestamp()]
    return old


def _remove(folder: Path, path: Path) -> None:
    # The folder is renamed first, so that half of it is never taken for a backup.
    gone = path if path.name.startswith(".") else manifests.unfinished(folder, path.name)
    if gone != path:
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
