"""Restoring a backup into an empty database: all of it in one transaction, or nothing.

The backup is verified first, every byte of it. Then one psql runs one script: it begins a transaction of the owner,
checks that the database is empty, passes the output of pg_restore through, compares the head of the log with the
manifest's, numbers pending changes, begins a new history, and commits. The end of the script is sent only after the
last byte of the dump was read and verified. Until then an error, a kill or a cut-off leaves the database as empty as it
was.

The history is new because watchers may have tokens of changes that this database never had.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pilothouse_migrations.checksums import CHECKSUMS
from pilothouse_migrations.roles import OWNER, ensure_roles
from pilothouse_migrations.versions_gate import refusal
from pilothouse_server.backup import manifests, programs, repository, verifying
from pilothouse_server.backup.failures import refused, unreadable
from pilothouse_server.backup.making import DEFAULT_SECONDS
from pilothouse_server.backup.manifests import Backup
from pilothouse_server.backup.repository import BackupTarget
from pilothouse_server.backup.verifying import Verified

# pg_restore sets it for servers of this version and newer; older ones do not have it.
_TRANSACTION_TIMEOUT: Final = b"SET transaction_timeout = 0;\n"
_KNOWS_TRANSACTION_TIMEOUT: Final = 170000


@dataclass(frozen=True, kw_only=True)
class Order:
    """Source and target of a restore.

    `dsn` is that of the maintenance login, or, if `makes_roles`, of an administrator. `master_keys_to` is the file
    for the master keys of the backup, if they are part of it.
    """

    path: Path
    dsn: str
    key_file: Path | None = None
    makes_roles: bool = False
    master_keys_to: Path | None = None
    seconds: float = DEFAULT_SECONDS


async def restore(order: Order) -> Backup:
    """Restores a backup, and returns it.

    The schema is that of the backup: a newer release applies its migrations afterwards.

    Raises:
        FailedPrecondition: the message has the reason; the database is unchanged.
        Unavailable: the database does not respond.
    """
    verified = await verifying.verify(order.path, order.key_file)
    if order.master_keys_to is not None:
        _check_master_keys(verified, order.master_keys_to)
    target = await repository.look_at(order.dsn)
    _check_target(target, verified, order)
    if order.makes_roles:
        await ensure_roles(order.dsn)
    try:
        async with asyncio.timeout(order.seconds):
            await _run(order.dsn, target, verified)
    except TimeoutError:
        raise refused(f"the restore did not end within {order.seconds:.0f} s", "TOO_SLOW") from None
    if order.master_keys_to is not None:
        _write_master_keys(verified, order.master_keys_to)
    return verified.backup


def is_older(backup: Backup) -> bool:
    """Returns whether migrations of this release are still to be applied to the restored database."""
    return backup.manifest.schema_version != list(CHECKSUMS)[-1]


def _check_target(target: BackupTarget, verified: Verified, order: Order) -> None:
    made_by, found = verified.backup.manifest.server_version_number, target.server_version_number
    if (words := refusal(found)) is not None:
        raise refused(words, "SERVER_REFUSED")
    if found // 10000 < made_by // 10000:
        raise refused(
            f"the backup is of PostgreSQL {made_by // 10000}, and the server is {found // 10000}: restore it into "
            f"one of {made_by // 10000} or newer",
            "SERVER_TOO_OLD",
        )
    if target.objects:
        raise refused(
            (
                f"the database is not empty: its schema public has {target.objects} objects. Restore into "
                "a new database"
            ),
            "TARGET_NOT_EMPTY",
        )
    if not target.owner and not order.makes_roles:
        raise refused(
            f"there is no role {OWNER}, or this login may not become it: give the URL of an administrator "
            "(--admin-url), which creates missing roles, or run `pilothouse migrate init`",
            "NOT_THE_OWNER",
        )


async def _run(dsn: str, target: BackupTarget, verified: Verified) -> None:
    last_words = repository.after_the_dump(verified.backup.manifest)
    # The programs must be as new as the dump, and as the target server.
    newest = max(target.server_version_number, verified.backup.manifest.server_version_number)
    found = await programs.find(newest, database=dsn)
    verified = Verified(verified.backup, verified.keys, found)
    words = ["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--file=-"]
    async with programs.running(found, "psql", words, database=dsn, reads=True) as run:
        into = run.process.stdin
        assert into is not None
        try:
            into.write(repository.before_the_dump())
            first = target.server_version_number < _KNOWS_TRANSACTION_TIMEOUT
            async with aclosing(verifying.script(verified)) as script:
                async for block in script:
                    # The setting is in the first lines, long before the first block ends.
                    into.write(block.replace(_TRANSACTION_TIMEOUT, b"", 1) if first else block)
                    first = False
                    await into.drain()
            into.write(last_words)
            await into.drain()
            into.close()
        except ConnectionError:
            # psql ended early; its output gives the reason.
            pass
        await run.ended()


def _check_master_keys(verified: Verified, path: Path) -> None:
    if verified.backup.find(manifests.MASTER_KEYS) is None:
        raise refused(f"{verified.backup.path} has no master keys", "NOT_THERE")
    if path.exists():
        raise refused(f"{path} already exists: name another file for the master keys", "FILE_UNUSABLE")


def _write_master_keys(verified: Verified, path: Path) -> None:
    try:
        path.touch(mode=0o600, exist_ok=False)
        with path.open("wb") as file:
            for piece in verifying.plain_bytes(verified, manifests.MASTER_KEYS):
                file.write(piece)
    except OSError as error:
        raise unreadable(path, error) from None
