"""Verifies a backup: every byte is compared with its manifest, and decrypted if it is encrypted.

pg_restore then reads the whole dump as it would to restore it, and its output is discarded. So a dump with the right
bytes that no pg_restore here can read is detected too.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pilothouse_migrations.checksums import CHECKSUMS
from pilothouse_migrations.schema import FIRST_ID
from pilothouse_server.backup import manifests, programs
from pilothouse_server.backup.failures import refused, unreadable
from pilothouse_server.backup.manifests import Backup
from pilothouse_server.backup.programs import Programs, Run
from pilothouse_server.backup.sealing import BackupKeys, opened
from pilothouse_server.runtime.tasks import cancel_and_wait

_BLOCK: Final = 1 << 20
_OF_THE_SERVER: Final = re.compile(rb"\d+; \d+ \d+ ((COMMENT|ACL) - )?(EXTENSION|SCHEMA) ")


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup whose bytes are all unchanged, and the programs that read it."""

    backup: Backup
    keys: BackupKeys | None
    found: Programs


async def verify(path: Path, key_file: Path | None) -> Verified:
    """Verifies a backup; nothing is written.

    Raises:
        FailedPrecondition: it was changed or cut off, it was made by a newer release or before 0.2.0, or the key file
            is not its own. The message names the file or the key.
    """
    backup = manifests.read(path)
    if backup.manifest.schema_version < FIRST_ID:
        raise refused(
            f"{path} was made before release 0.2.0 (at migration {backup.manifest.schema_version}): restore it with "
            "the release that made it",
            "OLDER_SCHEMA",
        )
    if backup.manifest.schema_version not in CHECKSUMS:
        raise refused(
            f"{path} was made at migration {backup.manifest.schema_version}, which this release does not have (its "
            f"newest is {list(CHECKSUMS)[-1]}): use the release that made it, or a newer one",
            "NEWER_SCHEMA",
        )
    keys = _keys(backup, key_file)
    await asyncio.to_thread(manifests.check_files, backup)
    if backup.find(manifests.DUMP) is None:
        raise refused(f"{path} has no dump", "DAMAGED")
    found = await programs.find(backup.manifest.server_version_number)
    verified = Verified(backup, keys, found)
    await asyncio.to_thread(_open_others, verified)
    async for _ in script(verified):
        pass
    return verified


def _keys(backup: Backup, key_file: Path | None) -> BackupKeys | None:
    if not backup.manifest.encrypted_under:
        return None
    if key_file is None:
        raise refused(
            f"{backup.path} is encrypted under the key {backup.manifest.encrypted_under}: name its key file",
            "WRONG_KEY",
        )
    keys = BackupKeys.load(key_file)
    keys.find(bytes.fromhex(backup.manifest.encrypted_under))
    return keys


def _open_others(verified: Verified) -> None:
    """Opens the encrypted files next to the dump."""
    for name in verified.backup.manifest.files:
        plain = name.removesuffix(manifests.SEALED)
        if plain != manifests.DUMP:
            for _ in plain_bytes(verified, plain):
                pass


def plain_bytes(verified: Verified, plain: str) -> Iterator[bytes]:
    """Yields a file of the backup, decrypted, in pieces. Raises FailedPrecondition, at the latest at its end."""
    name = verified.backup.find(plain)
    if name is None:
        raise refused(f"{verified.backup.path} has no {plain}", "NOT_THERE")
    path = verified.backup.path / name
    if name == plain:
        sha256 = hashlib.sha256()
        for block in manifests.blocks(path):
            sha256.update(block)
            yield block
        if sha256.hexdigest() != verified.backup.manifest.files[name].sha256:
            raise refused(f"{path} was changed while it was read", "DAMAGED")
        return
    try:
        with path.open("rb") as file:
            assert verified.keys is not None
            yield from opened(file, verified.keys, plain)
    except OSError as error:
        raise unreadable(path, error) from None


async def script(verified: Verified) -> AsyncGenerator[bytes, None]:
    """Yields the SQL of the dump in pieces, as pg_restore writes it.

    The end is reached only if all of the dump was read and is right. Raises FailedPrecondition.
    """
    with tempfile.TemporaryDirectory(prefix="pilothouse-restore-") as folder:
        chosen = Path(folder, "list")
        await asyncio.to_thread(chosen.write_bytes, _ours(await _contents(verified)))
        words = ["--file=-", "--no-owner", "--exit-on-error", f"--use-list={chosen}"]
        async with programs.running(verified.found, "pg_restore", words, reads=True, writes=True) as run:
            feeding = asyncio.create_task(_feed(run, verified))
            try:
                assert run.process.stdout is not None
                while block := await run.process.stdout.read(_BLOCK):
                    yield block
                await feeding
                await run.ended()
            finally:
                await cancel_and_wait(feeding)


async def _contents(verified: Verified) -> bytes:
    """Returns the list of contents at the beginning of the dump."""
    async with programs.running(verified.found, "pg_restore", ["--list"], reads=True, writes=True) as run:
        feeding = asyncio.create_task(_feed(run, verified))
        try:
            assert run.process.stdout is not None
            listed = await run.process.stdout.read(-1)
            if feeding.done():
                await feeding
            await run.ended()
        finally:
            await cancel_and_wait(feeding)
    return listed


def _ours(listed: bytes) -> bytes:
    """Returns the list without schemas and extensions: they belong to the database server, which has its own."""
    return b"\n".join(line for line in listed.splitlines() if not _OF_THE_SERVER.match(line)) + b"\n"


async def _feed(run: Run, verified: Verified) -> None:
    """Writes the dump to pg_restore."""
    to = run.process.stdin
    assert to is not None
    pieces = plain_bytes(verified, manifests.DUMP)
    ended_early = False
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            if ended_early:
                continue
            try:
                to.write(piece)
                await to.drain()
            except ConnectionError:
                # `run.ended` reports the reason. The rest is still read, to verify its last byte.
                ended_early = True
    finally:
        # This also happens after an error: otherwise pg_restore would wait for the rest.
        to.close()
