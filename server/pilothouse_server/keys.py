"""The server's secret keys, all derived from one master key that never enters the database.

The master key is 32 random bytes in a file that only its owner may read, made at the first start unless a
file is named. Replicas need the same file. Each use has a key of its own (HKDF-SHA256 with the use as
info), so that what one use reveals says nothing of another.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pilothouse_server.settings import PREFIX, SettingsError

_LENGTH = 32


class KeyRing:
    """Keys by use."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    @classmethod
    def load(cls, path: Path, *, create: bool) -> KeyRing:
        """Reads the master key; makes the file first if `create` and it is not there.

        Raises:
            SettingsError: the file is not there, not 32 bytes in hexadecimal, or readable by others.
        """
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(_LENGTH) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        variable = f"{PREFIX}SECRET_KEY_FILE"
        try:
            text, mode = path.read_text().strip(), path.stat().st_mode
        except OSError as error:
            raise SettingsError(
                f"{variable}: {path}: {(error.strerror or 'cannot be read').lower()}"
            ) from None
        if mode & 0o077:
            raise SettingsError(f"{variable}: {path} can be read by others: chmod 600 it")
        try:
            master = bytes.fromhex(text)
        except ValueError:
            master = b""
        if len(master) != _LENGTH:
            raise SettingsError(f"{variable}: {path} must hold {_LENGTH} bytes in hexadecimal")
        return cls(master)

    def derive(self, use: str) -> bytes:
        """The 32-byte key of one use, such as `resume-token`; the same for the same master key, always."""
        return HKDF(algorithm=SHA256(), length=_LENGTH, salt=None, info=f"pilothouse/{use}".encode()).derive(
            self._master
        )
