"""Encryption of the files of a backup, under a key of a key file.

The key file contains one key a line, 32 random bytes in hexadecimal, like the file of the master keys: the first line
encrypts, every line decrypts. It must not be stored next to the backups.

A sealed file is a header and chunks::

    "pilothouse sealed 1\\n" | key id, 8 bytes | salt, 32 bytes | chunk | chunk | … | last chunk

Each chunk is AES-256-GCM of up to 64 KiB, under a key of the file's own (HKDF-SHA256 of the key, the salt and the name
of the file) and a nonce of eleven bytes that count and one that is 1 for the last chunk only. This is the construction
STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015), which age and Tink use too. It detects a chunk that was changed, left
out, repeated or moved, a cut at the end of a chunk, and a file under another's name. Only a few chunks are in memory at
a time.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final, Protocol

from pilothouse_server.backup.failures import refused, unreadable

CHUNK_BYTES: Final = 64 * 1024
_MAGIC: Final = b"pilothouse sealed 1\n"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 8
_SALT_BYTES: Final = 32
_TAG_BYTES: Final = 16
HEADER_BYTES: Final = len(_MAGIC) + _ID_BYTES + _SALT_BYTES


class BackupKeys:
    """The keys of a key file, by identifier, the one that encrypts first."""

    def __init__(self, keys: Mapping[bytes, bytes], path: Path) -> None:
        self._keys = keys
        self.path = path

    @classmethod
    def load(cls, path: Path) -> BackupKeys:
        """Reads a key file.

        Raises:
            FailedPrecondition: it does not exist, can be read by others, or does not contain lines of 32 bytes in
            hexadecimal.
        """
        try:
            lines, mode = path.read_text("ascii").split(), path.stat().st_mode
            keys = [bytes.fromhex(line) for line in lines]
        except OSError as error:
            raise unreadable(path, error) from None
        except ValueError:
            keys, mode = [], 0
        if not keys or any(len(key) != _KEY_BYTES for key in keys):
            raise refused(
                f"{path} must contain lines of {_KEY_BYTES} bytes in hexadecimal", "KEY_FILE_INVALID"
            )
        if mode & 0o077:
            raise refused(f"{path} can be read by others: chmod 600 it", "KEY_FILE_INVALID")
        return cls({_identifier(key): key for key in keys}, path)

    @property
    def newest_id(self) -> str:
        """Identifier of the key that encrypts new backups, in hexadecimal."""
        return next(iter(self._keys)).hex()

    def newest(self) -> tuple[bytes, bytes]:
        """Returns the key that encrypts new backups, after its identifier."""
        return next(iter(self._keys.items()))

    def find(self, identifier: bytes) -> bytes:
        """Returns the key with this identifier.

        Raises FailedPrecondition if the file does not have it.
        """
        key = self._keys.get(identifier)
        if key is None:
            held = ", ".join(each.hex() for each in self._keys)
            raise refused(
                f"the backup is encrypted under the key {identifier.hex()}, but {self.path} has only {held}",
                "WRONG_KEY",
            )
        return key


def make_key_file(path: Path) -> str:
    """Creates a key file with one new key; returns its identifier.

    Raises FailedPrecondition if the file exists already.
    """
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{key.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unreadable(path, error) from None
    return _identifier(key).hex()


class Writer(Protocol):
    """The target of written bytes."""

    def write(self, data: bytes, /) -> object:
        """Writes all of `data`."""


class BackupSealer:
    """Encrypts bytes into a file that the caller opens and closes. `name` is that of the plain file."""

    def __init__(self, keys: BackupKeys, name: str, file: Writer) -> None:
        identifier, key = keys.newest()
        salt = secrets.token_bytes(_SALT_BYTES)
        self._cipher = _Chunks(key, salt, name)
        self._file = file
        self._held = bytearray()
        self._file.write(_MAGIC + identifier + salt)

    def write(self, data: bytes) -> None:
        """Adds more of the plain file."""
        self._held += data
        # Bytes of the last chunk stay in memory, so that the end of the file can be marked on it.
        while len(self._held) > CHUNK_BYTES:
            self._file.write(self._cipher.close(bytes(self._held[:CHUNK_BYTES]), last=False))
            del self._held[:CHUNK_BYTES]

    def finish(self) -> None:
        """Writes the last chunk. Without it the file is refused."""
        self._file.write(self._cipher.close(bytes(self._held), last=True))
        self._held.clear()


def opened(read: IO[bytes], keys: BackupKeys, name: str) -> Iterator[bytes]:
    """Yields the plain chunks of a sealed file, each authenticated. The end is reached only if the file is complete.

    Raises:
        FailedPrecondition: it is not a sealed file, the key file does not have its key, or part of it was changed.
    """
    header = read.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        raise refused(f"{name} is not an encrypted file of a backup", "DAMAGED")
    identifier = header[len(_MAGIC) : len(_MAGIC) + _ID_BYTES]
    cipher = _Chunks(keys.find(identifier), header[-_SALT_BYTES:], name)
    box = read.read(CHUNK_BYTES + _TAG_BYTES)
    while True:
        following = read.read(CHUNK_BYTES + _TAG_BYTES)
        yield cipher.open(box, last=not following)
        if not following:
            return
        box = following


class _Chunks:
    """The chunks of one file, in their order."""

    def __init__(self, key: bytes, salt: bytes, name: str) -> None:
        # Imported on first use, because it takes 8 MB of a server's memory.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._box = AESGCM(_derived(key, salt, f"pilothouse/backup/{name}"))
        self._name = name
        self._number = 0

    def close(self, chunk: bytes, *, last: bool) -> bytes:
        """Encrypts the next chunk."""
        return self._box.encrypt(self._nonce(last), chunk, None)

    def open(self, box: bytes, *, last: bool) -> bytes:
        """Decrypts the next chunk. Raises FailedPrecondition."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._box.decrypt(self._nonce(last), box, None)
        # A box too short to hold a tag is a ValueError of the library.
        except (InvalidTag, ValueError):
            raise refused(f"{self._name} was changed or cut off since it was encrypted", "DAMAGED") from None

    def _nonce(self, last: bool) -> bytes:
        self._number += 1
        return self._number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _identifier(key: bytes) -> bytes:
    return _derived(key, bytes(_KEY_BYTES), "pilothouse/backup-key-id")[:_ID_BYTES]


def _derived(key: bytes, salt: bytes, use: str) -> bytes:
    """Returns the first block of HKDF-SHA256 (RFC 5869)."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), f"{use}\x01".encode(), "sha256")
