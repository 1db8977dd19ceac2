"""The manifest of a backup, and its folder.

Every byte of a backup is covered by a SHA-256: `manifest.json` has the hashes of the files, and SHA256SUMS has these
and the manifest's. SHA256SUMS itself must equal, byte for byte, the text computed from the manifest. So a changed byte
anywhere is detected. But anybody who may write to the folder can replace all of it. Two things detect that: a key file,
without which nobody can create a dump that decrypts, and an audit head that was exported before.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from pilothouse_server.backup.failures import refused, unreadable
from pilothouse_server.errors import FailedPrecondition

FORMAT: Final = 1
DUMP: Final = "database.dump"
MASTER_KEYS: Final = "master.key"
SEALED: Final = ".sealed"
MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
_UNFINISHED: Final = ".unfinished"
_PREFIX: Final = "pilothouse-"
_NAME = re.compile(r"pilothouse-\d{8}T\d{6}Z(-\d+)?")
# A manifest is a few hundred bytes; a file of this name may be anything.
_LONGEST_MANIFEST: Final = 1 << 20
_BLOCK: Final = 1 << 20


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a backup: its size in bytes, and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Contents and requirements of a backup, all as of the snapshot of the dump.

    `schema_version` is the newest migration applied; `server_version_number` PostgreSQL's (180006 is 18.6).
    `history_id` and `revision` are the head of the events, `audit_sequence` is the newest record of the audit log.
    `audit_head` is the root of the newest sealed head of the audit log in hexadecimal, "" if none was sealed.
    `master_key_ids` names the master keys without which its secrets cannot be read. `encrypted_under` is the key of the
    backup, "" if it is not encrypted.
    """

    format: int
    created_at: datetime
    database: str
    database_bytes: int
    schema_version: str
    server_version_number: int
    history_id: str
    revision: int
    audit_sequence: int
    audit_head: str
    master_key_ids: tuple[str, ...]
    encrypted_under: str
    files: Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Backup:
    """A complete backup: its folder and its manifest."""

    path: Path
    manifest: BackupManifest

    @property
    def bytes(self) -> int:
        """Its size on disk, without the manifest."""
        return sum(file.bytes for file in self.manifest.files.values())

    def find(self, plain: str) -> str | None:
        """Returns the name of a file in the backup, sealed or not; None if the backup does not contain it."""
        for name in (plain + SEALED, plain):
            if name in self.manifest.files:
                return name
        return None


class HashingWriter:
    """Writes to a file, and counts and hashes the bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Writes all of `data`. Raises OSError."""
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def summed(self) -> File:
        """Returns size and hash of all that was written."""
        return File(self._bytes, self._sha256.hexdigest())


def name_at(moment: datetime, folder: Path) -> str:
    """Returns a name for a backup of `moment` that no other backup in the folder has, complete or not."""
    name = f"{_PREFIX}{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    taken = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(each for each in candidates if not {each, unfinished(folder, each).name} & taken)


def unfinished(folder: Path, name: str) -> Path:
    """Returns the folder that a backup of this name has until it is complete."""
    return folder / f".{name}{_UNFINISHED}"


def left_unfinished(folder: Path) -> list[Path]:
    """Returns the folders of backups that were begun but not completed."""
    return sorted(folder.glob(f".{_PREFIX}*{_UNFINISHED}"))


def write(folder: Path, manifest: BackupManifest) -> None:
    """Writes the manifest and the sums into the folder of a backup. Raises OSError."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    (folder / MANIFEST).write_bytes(encoded)
    (folder / SUMS).write_bytes(_sums(encoded, manifest))


def read(path: Path) -> Backup:
    """Reads the manifest of a backup, and checks that it is unchanged; does not read the other files.

    Raises:
        FailedPrecondition: it is not a backup, it was changed, or a newer release made it.
    """
    try:
        encoded = _bounded(path / MANIFEST)
        sums = _bounded(path / SUMS)
    except OSError as error:
        raise unreadable(path, error) from None
    damaged = refused(f"{path}: {MANIFEST} or {SUMS} was changed after the backup was made", "DAMAGED")
    listed = f"{hashlib.sha256(encoded).hexdigest()}  {MANIFEST}\n".encode()
    if not sums.startswith(listed):
        raise damaged
    try:
        found = msgspec.json.decode(encoded, type=dict[str, object]).get("format")
        if found != FORMAT:
            raise refused(
                f"{path} has the format {found}, and this release reads {FORMAT}: use the release that made it",
                "NEWER_FORMAT",
            )
        manifest = msgspec.json.decode(encoded, type=BackupManifest)
    except msgspec.MsgspecError:
        raise damaged from None
    if sums != _sums(encoded, manifest):
        raise damaged
    return Backup(path, manifest)


def check_files(backup: Backup) -> None:
    """Reads every file and compares it with the manifest. Raises FailedPrecondition."""
    for name, listed in backup.manifest.files.items():
        path = backup.path / name
        if name != Path(name).name:
            raise refused(f"{backup.path}: {name} is not a file name", "DAMAGED")
        sha256, size = hashlib.sha256(), 0
        for block in blocks(path):
            sha256.update(block)
            size += len(block)
        if size != listed.bytes:
            raise refused(f"{path} has {size} bytes, and had {listed.bytes} when it was made", "DAMAGED")
        if sha256.hexdigest() != listed.sha256:
            raise refused(f"{path} was changed after the backup was made: its SHA-256 differs", "DAMAGED")


def blocks(path: Path) -> Iterator[bytes]:
    """Yields the bytes of a file, a mebibyte at a time. Raises FailedPrecondition."""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise unreadable(path, error) from None


def found_in(folder: Path) -> list[Backup | Path]:
    """Returns the backups of a folder, oldest first; for one whose manifest cannot be read, its path."""
    found: list[Backup | Path] = []
    try:
        paths = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
    except OSError as error:
        raise unreadable(folder, error) from None
    for path in paths:
        try:
            found.append(read(path))
        except FailedPrecondition:
            found.append(path)
    return found


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_MANIFEST)


def _sums(encoded: bytes, manifest: BackupManifest) -> bytes:
    lines = [(hashlib.sha256(encoded).hexdigest(), MANIFEST)]
    lines += [(file.sha256, name) for name, file in manifest.files.items()]
    return "".join(f"{digest}  {name}\n" for digest, name in lines).encode()
