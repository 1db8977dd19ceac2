"""The server's secret keys, all derived from master keys that never enter the database.

A master key is 32 random bytes, written in hexadecimal. Two providers have master keys, each with the newest first. The
key file has one key a line. Only its owner may read it, and it is created at the first start unless the settings name a
file. The environment is a setting that is read once. Replicas need the same keys. Each use has a key of its own
(HKDF-SHA256 with the use as info), so a key of one use reveals nothing about another.

There are two kinds of use. Uses whose key must stay the same when keys are added and removed (tokens of pages and
watches, request ids) derive from the *oldest* key: the last one of the last provider. Uses that encrypt stored values
have a key for every master key (`key_encryption_keys`). Its identifier is derived too, and the database names keys by
this identifier, whichever provider has them. A key may be removed once no stored value is encrypted under it, because
such a value would be lost: `pilothouse keys remove` checks this first (`cli.keys`), this module does not. If it was the
oldest key, existing page and resume tokens become invalid.

The third provider, a PKCS#11 token, has no master keys: its keys wrap, and never leave it (`encryption.hsm`).

The file is read again when a key is requested that was not in it (`refresh`), so a key is added without a restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pilothouse_server.settings.model import PREFIX, Settings, SettingsError

FILE, ENVIRONMENT, PKCS11 = PROVIDERS = ("file", "environment", "pkcs11")
_LENGTH = 32
_ID_LENGTH = 8
_VARIABLE = f"{PREFIX}SECRET_KEY_FILE"


class KeySource(Protocol):
    """A source of master keys. `provider` is its name in the settings."""

    @property
    def provider(self) -> str: ...

    def read(self) -> list[bytes]:
        """Returns the keys, newest first. Raises SettingsError."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Keys of a file."""

    path: Path
    provider: str = FILE

    def read(self) -> list[bytes]:
        """Returns the keys that the file has now. Raises SettingsError."""
        return _read(self.path)


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """Keys in a setting. They do not change until a restart."""

    text: str
    provider: str = ENVIRONMENT

    def read(self) -> list[bytes]:
        """Returns the keys of the setting. Raises SettingsError; its text never shows the value."""
        return _parsed(re.split(r"[\s,]+", self.text.strip(" \t\r\n,")), f"{PREFIX}SECRET_KEYS")

    def __repr__(self) -> str:
        return "EnvironmentSource()"


@dataclass(frozen=True, slots=True)
class _Given:
    """Keys that are passed directly."""

    masters: Sequence[bytes]
    provider: str = ENVIRONMENT

    def read(self) -> list[bytes]:
        return list(self.masters)

    def __repr__(self) -> str:
        return "_Given()"


class KeyRing:
    """Keys by use, from one or more master keys, newest first."""

    def __init__(self, masters: Sequence[bytes] = (), sources: Sequence[KeySource] = ()) -> None:
        self._sources = sources or [_Given(masters)]
        self.refresh()

    @classmethod
    def of(cls, settings: Settings, *, create: bool = True) -> KeyRing:
        """Returns the master keys of the configured providers; creates a key file in the data folder if `create`.

        Raises:
            SettingsError: a provider does not exist, none of them has master keys, or as `load`.
        """
        named = providers(settings)
        sources: list[KeySource] = []
        for provider in named:
            if provider == FILE:
                if create and settings.secret_key_file is None:
                    _make(settings.key_file)
                sources.append(FileSource(settings.key_file))
            elif provider == ENVIRONMENT:
                sources.append(EnvironmentSource(settings.secret_keys))
        if settings.secret_keys and ENVIRONMENT not in named:
            raise SettingsError(
                f"{PREFIX}SECRET_KEYS is set, but {PREFIX}KEY_PROVIDERS does not name {ENVIRONMENT}: add it,"
                " or unset the keys"
            )
        if not sources:
            raise SettingsError(
                f"{PREFIX}KEY_PROVIDERS: {FILE} or {ENVIRONMENT} is needed, too: the keys of a token only encrypt;"
                " the keys that sign page and resume tokens derive from a master key"
            )
        return cls(sources=sources)

    @classmethod
    def load(cls, path: Path, *, create: bool) -> KeyRing:
        """Reads the key file; creates it first if `create` and it does not exist.

        Raises:
            SettingsError: the file does not exist, is not lines of 32 bytes in hexadecimal, or is readable by others.
        """
        if create:
            _make(path)
        return cls(sources=[FileSource(path)])

    @property
    def newest_key_id(self) -> str:
        """Identifier of the key-encryption key of the first master key."""
        return next(iter(self._by_id))

    @property
    def key_encryption_keys(self) -> Mapping[str, bytes]:
        """The 32-byte keys that wrap data keys, by identifier, newest first."""
        return self._by_id

    @property
    def providers(self) -> Mapping[str, str]:
        """The name of the first provider of each key, by the key's identifier."""
        return self._providers

    def derive(self, use: str) -> bytes:
        """Returns the 32-byte key of one use, such as `resume-token`; the same while the oldest key stays."""
        return _derived(self._oldest, use, _LENGTH)

    def derive_each(self, use: str) -> list[bytes]:
        """Returns the 32-byte key of one use for every master key, newest first, for signatures by old and new keys."""
        return [_derived(master, use, _LENGTH) for master in self._masters]

    def refresh(self) -> None:
        """Reads the keys again and replaces the present ones.

        Raises:
            SettingsError: as `of`; the present keys stay.
        """
        found = [(master, source.provider) for source in self._sources for master in source.read()]
        self._oldest = found[-1][0]
        # A key that is moved from one provider to another is in both for a while.
        self._masters = tuple(dict.fromkeys(master for master, _ in found))
        self._by_id = {
            key_id_of(master): _derived(master, "key-encryption-key", _LENGTH) for master in self._masters
        }
        self._providers: dict[str, str] = {}
        for master, provider in found:
            self._providers.setdefault(key_id_of(master), provider)


def providers(settings: Settings) -> tuple[str, ...]:
    """Returns the providers that the settings name, in their order. Raises SettingsError."""
    named = tuple(part.strip() for part in settings.key_providers.split(",") if part.strip())
    for name in named:
        if name not in PROVIDERS:
            raise SettingsError(f"{PREFIX}KEY_PROVIDERS: {name!r} is not one of {', '.join(PROVIDERS)}")
    if not named or len(set(named)) != len(named):
        raise SettingsError(f"{PREFIX}KEY_PROVIDERS must name one provider or more, each once")
    return named


def new_key() -> tuple[str, str]:
    """Returns a new master key in its written form, and its identifier."""
    master = secrets.token_bytes(_LENGTH)
    return master.hex(), key_id_of(master)


def key_id_of(master: bytes) -> str:
    """Returns the identifier of the key-encryption key of a master key."""
    return _derived(master, "key-encryption-key-id", _ID_LENGTH).hex()


def add_key(path: Path) -> str:
    """Adds a new newest key to the key file; returns its identifier. A kill leaves the step undone or done.

    Raises:
        SettingsError: as `KeyRing.load`.
    """
    with _alone(path):
        added = secrets.token_bytes(_LENGTH)
        _write(path, [added, *_read(path)])
    return key_id_of(added)


def remove_key(path: Path, key_id: str, *, keep: bool = False) -> Path | None:
    """Removes a key from the key file. `keep`: also keeps a copy of the old file, and returns its path.

    Raises:
        SettingsError: as `KeyRing.load`; or there is no such key, or it is the newest.
    """
    with _alone(path):
        masters = _read(path)
        ids = list(KeyRing(masters).key_encryption_keys)
        if key_id not in ids:
            raise SettingsError(f"{path} contains no key {key_id}; it contains {', '.join(ids)}")
        if ids[0] == key_id:
            raise SettingsError(
                f"{key_id} is the newest key of {path}, which encrypts new values: add a new one first"
            )
        kept = path.with_name(f"{path.name}.with-{key_id}") if keep else None
        if kept is not None:
            _write(kept, masters)
        _write(path, [master for master, each in zip(masters, ids, strict=True) if each != key_id])
    return kept


def _derived(master: bytes, use: str, length: int) -> bytes:
    """Returns the first block of HKDF-SHA256 (RFC 5869) without salt; `length` is 32 at most.

    Implemented here because the library that has it takes 8 MB, which a server that opens no stored value does not use.
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
    return _parsed(lines, f"{_VARIABLE}: {path}")


def _parsed(words: Sequence[str], where: str) -> list[bytes]:
    try:
        masters = [bytes.fromhex(word) for word in words]
    except ValueError:
        masters = []
    if not masters or any(len(master) != _LENGTH for master in masters):
        raise SettingsError(f"{where} must contain keys of {_LENGTH} bytes in hexadecimal")
    if len(set(masters)) != len(masters):
        raise SettingsError(f"{where} contains a key twice")
    return masters


def _make(path: Path) -> None:
    """Creates the key file with a first key, unless it exists."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, [secrets.token_bytes(_LENGTH)], new=True)


def _write(path: Path, masters: Sequence[bytes], *, new: bool = False) -> None:
    """Writes the file in one step. `new`: a file of another process stays, because that may have read it already."""
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
    """Locks the file, so that concurrent changes happen one after the other."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
