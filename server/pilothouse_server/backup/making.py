"""Creates a backup: checks space, dumps one snapshot into a folder with a temporary name, hashes, renames.

If a step fails, the temporary folder is removed, and no folder has the name of a backup.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Final

from pilothouse_migrations.roles import OWNER
from pilothouse_server.backup import manifests, programs, repository
from pilothouse_server.backup.disk import Disk
from pilothouse_server.backup.failures import refused, unreadable
from pilothouse_server.backup.manifests import Backup, BackupManifest, File, HashingWriter
from pilothouse_server.backup.programs import Programs, Run
from pilothouse_server.backup.repository import Facts
from pilothouse_server.backup.sealing import BackupKeys, BackupSealer, Writer
from pilothouse_server.store.noun_tables import EnvelopeTable

_BLOCK: Final = 1 << 20
# The most bytes that are written without fsync, so that each step ends in time on a slow disk.
_MOST_UNSYNCED_BYTES: Final = 32 << 20
# Free space to leave in addition to the dump.
_RESERVE_BYTES: Final = 16 << 20
DEFAULT_SECONDS: Final = 6 * 3600.0


def free_bytes(folder: Path) -> int:
    """Returns the bytes that this process may still write there."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The source, target and options of a backup.

    `dsn` is that of the maintenance login. `key_file` encrypts; without it nothing is encrypted, and
    `master_key_file` cannot be included. `seconds` limits the whole backup. `sealed` are all tables with encrypted
    values: the manifest names the keys that they need.
    """

    dsn: str
    folder: Path
    key_file: Path | None = None
    master_key_file: Path | None = None
    seconds: float = DEFAULT_SECONDS
    sealed: Sequence[EnvelopeTable] = ()
    free: Callable[[Path], int] = free_bytes
    programs_in: Sequence[Path] | None = None

    @cached_property
    def disk(self) -> Disk:
        """Runs all disk steps of backups, one after the other."""
        return Disk(self.folder)


async def make(plan: Plan, moment: datetime | None = None) -> Backup:
    """Creates a backup, named after `moment` or the present time; returns it complete and flushed to the disk.

    Raises:
        FailedPrecondition: the message has the reason: no space, no key, no program that is new enough, another
            running backup, a program that failed, a disk that fails or hangs, no end within the time.
        Unavailable: the database does not respond.
    """
    try:
        async with asyncio.timeout(plan.seconds):
            return await _make(plan, (moment or datetime.now(UTC)).replace(microsecond=0))
    except TimeoutError:
        raise refused(f"the backup did not end within {plan.seconds:.0f} s", "TOO_SLOW") from None


async def _make(plan: Plan, moment: datetime) -> Backup:
    disk = plan.disk
    keys = None if plan.key_file is None else await disk.answer(BackupKeys.load, plan.key_file)
    if keys is None and plan.master_key_file is not None:
        raise refused(
            "master keys are only backed up encrypted: name a key file for the backup", "KEYS_IN_THE_CLEAR"
        )
    await disk.answer(lambda: plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True))
    name = await disk.answer(manifests.name_at, moment, plan.folder)
    begun = manifests.unfinished(plan.folder, name)
    try:
        await disk.answer(begun.mkdir, 0o700)
        written = await _write(plan, keys, begun, moment)
        await _keep(begun, plan.folder / name, disk)
    finally:
        await disk.clear(lambda: shutil.rmtree(begun, ignore_errors=True))
    return Backup(plan.folder / name, written)


async def _write(plan: Plan, keys: BackupKeys | None, begun: Path, moment: datetime) -> BackupManifest:
    async with AsyncExitStack() as stack:
        facts = await stack.enter_async_context(repository.snapshot(plan.dsn, plan.sealed))
        found = await programs.find(facts.server_version_number, plan.programs_in, database=plan.dsn)
        await plan.disk.answer(_check_space, plan, facts)
        run = await stack.enter_async_context(_pg_dump(found, plan.dsn, facts))
        files = dict([await _keep_output(run, begun, keys, plan.disk)])
        await run.ended()
    if keys is not None and plan.master_key_file is not None:
        name = manifests.MASTER_KEYS
        files[name + manifests.SEALED] = await plan.disk.answer(
            _seal, plan.master_key_file, begun / (name + manifests.SEALED), name, keys
        )
    made = BackupManifest(
        format=manifests.FORMAT,
        created_at=moment,
        database=facts.database,
        database_bytes=facts.database_bytes,
        schema_version=facts.schema_version,
        server_version_number=facts.server_version_number,
        history_id=facts.history_id,
        revision=facts.revision,
        audit_sequence=facts.audit_sequence,
        audit_head=facts.audit_head,
        master_key_ids=facts.master_key_ids,
        encrypted_under=keys.newest_id if keys is not None else "",
        files=files,
    )
    await plan.disk.answer(manifests.write, begun, made)
    return made


def _pg_dump(found: Programs, dsn: str, facts: Facts) -> AbstractAsyncContextManager[Run]:
    words = [
        "--format=custom",
        f"--role={OWNER}",
        f"--snapshot={facts.snapshot}",
        "--no-password",
        "--lock-wait-timeout=60s",
        # Rights on locks are set with the roles; the restoring login may not be allowed to set them.
        "--exclude-schema=pg_catalog",
        # Other schemas of the same database are not ours to read.
        *(f"--exclude-schema={name}" for name in facts.other_schemas),
    ]
    return programs.running(found, "pg_dump", words, database=dsn, writes=True)


async def _keep_output(run: Run, begun: Path, keys: BackupKeys | None, disk: Disk) -> tuple[str, File]:
    """Writes the output of a program into a file, encrypted if there is a key; returns the file's name and sums."""
    name = manifests.DUMP if keys is None else manifests.DUMP + manifests.SEALED
    assert run.process.stdout is not None
    file = await disk.answer(lambda: (begun / name).open("xb"))
    try:
        target = HashingWriter(file)
        sealer = None if keys is None else BackupSealer(keys, manifests.DUMP, target)
        into: Writer = target if sealer is None else sealer
        unsynced = 0
        while block := await run.process.stdout.read(_BLOCK):
            await disk.answer(into.write, block)
            unsynced += len(block)
            if unsynced >= _MOST_UNSYNCED_BYTES:
                await disk.answer(_sync, file)
                unsynced = 0
        if sealer is not None:
            await disk.answer(sealer.finish)
        await disk.answer(_sync, file)
    finally:
        await disk.clear(file.close)
    return name, target.summed()


def _seal(source: Path, path: Path, name: str, keys: BackupKeys) -> File:
    """Writes an encrypted copy of a file; returns its sums."""
    data = _bytes_of(source)
    with path.open("xb") as file:
        target = HashingWriter(file)
        sealer = BackupSealer(keys, name, target)
        sealer.write(data)
        sealer.finish()
    return target.summed()


def _check_space(plan: Plan, facts: Facts) -> None:
    needed = facts.table_bytes + _RESERVE_BYTES
    free = plan.free(plan.folder)
    if free < needed:
        raise refused(
            (
                f"{plan.folder} has {_mebibytes(free)} free, and the backup may take "
                f"{_mebibytes(needed)}: free space, or name another folder"
            ),
            "NO_SPACE",
        )


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


async def _keep(begun: Path, path: Path, disk: Disk) -> None:
    """Flushes all of it to the disk, then renames it to its final name.

    If the disk hangs in the last two steps, the backup may get its name later; it is complete then.
    """
    for file in await disk.answer(lambda: list(begun.iterdir())):
        await disk.answer(file.chmod, 0o600)
        await disk.answer(_flush, file)
    await disk.answer(_flush, begun)
    await disk.answer(begun.rename, path)
    await disk.answer(_flush, path.parent)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
