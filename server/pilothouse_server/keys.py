"""The server's secret keys, all derived from master keys that never enter the database.

The key file holds one master key a line, 32 random bytes in hexadecimal, the newest first; only its owner may
read it. It is made at the first start unless a file is named. Replicas need the same file. Each use has a key
of its own (HKDF-SHA256 with the use as info), so that what one use reveals says nothing of another.

Two kinds of use. What must stay the same while keys come and go (tokens of pages and watches, request ids)
derives from the *oldest* line. What encrypts stored values has a key for every line (`key_encryption_keys`),
each with an identifier that is derived too: the database names keys by it. A line may be removed once no
stored value is encrypted under its key, for such a value is lost with it: `pilothouse keys remove` asks first
(`cli_keys`), this module does not. If it was the oldest, page and resume tokens given out before end.

The file is read again when a key is asked for that was not in it (`refresh`), so a key is added without a
restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pilothouse_server.settings import PREFIX, SettingsError

_LENGTH = 32
_ID_LENGTH = 8
_VARIABLE = f"{PREFIX}SECRET_KEY_FILE"


class KeyRing:
    """Keys by use, from one or more master keys, newest first."""

    def __init__(self, masters: Sequence[bytes], path: Path | None = None) -> None:
        self._path = path
        self._set(masters)

    @classmethod
    def load(cls, path: Path, *, create: bool) -> KeyRing:
        """Reads the key file; makes it first if `create` and it is not there.

        Raises:
            SettingsError: the file is not there, not lines of 32 bytes in hexadecimal, or readable by others.
        """
        if create and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, [secrets.token_bytes(_LENGTH)], new=True)
        return cls(_read(path), path)

    @property
    def newest_key_id(self) -> str:
        """Identifier of the key-encryption key of the first line."""
        return next(iter(self._by_id))

    @property
    def key_encryption_keys(self) -> Mapping[str, bytes]:
        """The 32-byte keys that wrap data keys, by identifier, newest first."""
        return self._by_id

    def derive(self, use: str) -> bytes:
        """The 32-byte key of one use, such as `resume-token`; the same while the oldest line stays."""
        return _derived(self._masters[-1], use, _LENGTH)

    def derive_each(self, use: str) -> list[bytes]:
        """The 32-byte key of one use of every line, newest first: for what old and new keys sign both."""
        return [_derived(master, use, _LENGTH) for master in self._masters]

    def refresh(self) -> None:
        """Reads the file again; what is there now counts.

        Raises:
            SettingsError: as `load`; the keys stay as they were.
        """
        if self._path is not None:
            self._set(_read(self._path))

    def _set(self, masters: Sequence[bytes]) -> None:
        self._masters = tuple(masters)
        self._by_id = {
            _derived(master, "key-encryption-key-id", _ID_LENGTH).hex(): _derived(
                master, "key-encryption-key", _LENGTH
            )
            for master in masters
        }


def add_key(path: Path) -> str:
    """Puts a new newest key into the key file, in one step that a kill leaves undone or done; answers its
    identifier.

    Raises:
        SettingsError: as `KeyRing.load`.
    """
    with _alone(path):
        ring = KeyRing([secrets.token_bytes(_LENGTH), *_read(path)])
        _write(path, ring._masters)
    return ring.newest_key_id


def remove_key(path: Path, key_id: str, *, keep: bool = False) -> Path | None:
    """Takes a key out of the key file. `keep`: the file as it was stays beside it, where the answer says.

    Raises:
        SettingsError: as `KeyRing.load`; or there is no such key, or it is the newest.
    """
    with _alone(path):
        masters = _read(path)
        ids = list(KeyRing(masters).key_encryption_keys)
        if key_id not in ids:
            raise SettingsError(f"{path} holds no key {key_id}; it holds {', '.join(ids)}")
        if ids[0] == key_id:
            raise SettingsError(f"{key_id} is the newest key of {path}: what is encrypted next needs it")
        kept = path.with_name(f"{path.name}.with-{key_id}") if keep else None
        if kept is not None:
            _write(kept, masters)
        _write(path, [master for master, each in zip(masters, ids, strict=True) if each != key_id])
    return kept


def _derived(master: bytes, use: str, length: int) -> bytes:
    """The first block of HKDF-SHA256 (RFC 5869) without salt; `length` is 32 at most.

    Written out, because the library that has it takes 8 MB, which a server that opens no stored value does without.
    """
    pseudorandom = hmac.digest(bytes(_LENGTH), master, "sha256")
    return hmac.digest(pseudorandom, f"pilothouse/{use}\x01".encode(), "sha256")[:length]


def _read(path: Path) -> list[bytes]:
    try:
        lines, mode = path.read_text().split(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        words = (error.strerror if isinstance(error, OSError) else None) or "cannot be read"
        raise SettingsError(f"{_VARIABLE}: {path}: {words.lower()}") from None
    if mode & 0o077:
        raise SettingsError(f"{_VARIABLE}: {path} can be read by others: chmod 600 it")
    try:
        masters = [bytes.fromhex(line) for line in lines]
    except ValueError:
        masters = []
    if not masters or any(len(master) != _LENGTH for master in masters):
        raise SettingsError(f"{_VARIABLE}: {path} must hold lines of {_LENGTH} bytes in hexadecimal")
    if len(set(masters)) != len(masters):
        raise SettingsError(f"{_VARIABLE}: {path} holds a key twice")
    return masters


def _write(path: Path, masters: Sequence[bytes], *, new: bool = False) -> None:
    """Writes the file in one step. `new`: another process's file stays, which it may have read already."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{master.hex()}\n" for master in masters)
        file.flush()
        os.fsync(file.fileno())
    if new:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
        temporary.unlink()
    else:
        temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two who change the file do so one after the other."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
