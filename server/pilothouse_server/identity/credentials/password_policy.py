"""The rules for new passwords: long enough, without the user's name, neither common nor known to be stolen.

The list of common passwords comes with the server (`common_passwords.txt`, with its licence next to it). A password is
common if it is in the list, in upper or lower case, or if it is in the list after a few digits and signs are removed
from its end.

The list of stolen passwords is a file that `PILOTHOUSE_PASSWORD_BREACHED_FILE` names. It has one line for each
password, in the order of bytes (`LC_ALL=C sort -u`): either upper-case SHA-1 in hexadecimal, with or without a colon
and a count, as Have I Been Pwned publishes it, or the passwords themselves. The file may have tens of gigabytes, so a
thread searches it by bisection and never reads it whole. At the start, the order of its lines is checked at 64 places.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Final

from pilothouse_server.errors import Unavailable, invalid
from pilothouse_server.identity.credentials import totp
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError
from pilothouse_server.values.names import normalise_username

LONGEST_PASSWORD: Final = 1024
# A one-time code works for a day, because it reaches the user by other means than this server.
ONE_TIME_CODE_LIFE: Final = timedelta(hours=24)
# Passwords may contain shorter user names, because many passwords would contain such a name by chance.
_SHORTEST_NAME_LOOKED_FOR: Final = 4
_SHA1_LINE: Final = re.compile(rb"[0-9A-F]{40}(:[0-9]+)?")
# In bytes, and more than a valid line can have. A line of this length shows that the file has no line breaks.
_LONGEST_LINE: Final = 4200
_LOOKED_AT: Final = 64
_COMMON: Final = Path(__file__).with_name("common_passwords.txt")
# Digits and signs at the end. Adding them to a common password does not make it acceptable.
_ADDED: Final = re.compile(r"[\d\W_]{1,8}\Z")


class PasswordPolicy:
    """The rules for new passwords, from the settings."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError if a list of passwords cannot be read or is not in order."""
        self._shortest = settings.password_min_length
        self._common = BreachedPasswords(_COMMON)
        file = settings.password_breached_file
        self._breached = None if file is None else BreachedPasswords(file)

    async def check(self, field: str, password: str, username: str) -> None:
        """Checks a new password of a user.

        Raises:
            InvalidArgument: WEAK_PASSWORD or BREACHED_PASSWORD, with the rule that the password in `field` breaks.
            Unavailable: a list of passwords cannot be read.
        """
        if problem := self._problem(password, normalise_username(username)):
            raise invalid(field, problem, reason="WEAK_PASSWORD")
        if await self._is_common(normalise_username(password)):
            raise invalid(
                field,
                "must not be a common password, nor one with digits or signs added: choose several words",
                reason="WEAK_PASSWORD",
            )
        if self._breached is not None and await self._breached.holds_soon(password):
            raise invalid(
                field,
                "must not be one of the stolen passwords in the server's list",
                reason="BREACHED_PASSWORD",
            )

    async def _is_common(self, password: str) -> bool:
        stem = _ADDED.sub("", password)
        return await self._common.holds_soon(password) or await self._common.holds_soon(stem)

    def _problem(self, password: str, name: str) -> str:
        if not self._shortest <= len(password) <= LONGEST_PASSWORD:
            return f"must have {self._shortest} to {LONGEST_PASSWORD} characters"
        normal = normalise_username(password)
        if normal == name:
            return "must not be the user name"
        if len(name) >= _SHORTEST_NAME_LOOKED_FOR and name in normal:
            return "must not contain the user name"
        return ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The new password of a reset: a given one, or a one-time code that is valid for `good_for`."""

    password_hash: str = field(repr=False)
    one_time_code: str = field(default="", repr=False)
    good_for: timedelta | None = None


class NewPasswords:
    """Checks new passwords and hashes them.

    Call it without a database connection: it may wait for a thread.
    """

    def __init__(self, passwords: Passwords, settings: Settings) -> None:
        """Raises SettingsError as `PasswordPolicy`."""
        self._passwords = passwords
        self._good_for = ONE_TIME_CODE_LIFE
        self._policy = PasswordPolicy(settings)

    async def check(self, field: str, password: str, username: str) -> None:
        """Raises as `PasswordPolicy.check`."""
        await self._policy.check(field, password, username)

    async def hash(self, field: str, password: str, username: str, who: str) -> str:
        """Returns the hash of a new password of a user; `who` is the requesting caller.

        Raises:
            InvalidArgument: as `PasswordPolicy.check`. ResourceExhausted: too many attempts are waiting.
        """
        await self.check(field, password, username)
        return await self.hash_checked(password, who)

    async def hash_checked(self, password: str, who: str) -> str:
        """Returns the hash of a password that was checked, or that the server made. Raises ResourceExhausted."""
        return await self._passwords.hash(password, who)

    async def for_reset(self, new_password: str, username: str, who: str) -> Reset:
        """Returns a new password for another user; a one-time code if no password is given. Raises as `hash`."""
        if new_password:
            return Reset(await self.hash("new_password", new_password, username, who))
        code = totp.new_one_time_code()
        return Reset(await self.hash_checked(code, who), code, self._good_for)


class BreachedPasswords:
    """A sorted file of passwords, or of their SHA-1."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError if the file cannot be read, or if its lines are not in order."""
        self._path = path
        try:
            with path.open("rb") as file:
                first = file.readline(_LONGEST_LINE).rstrip(b"\r\n")
                in_order = _is_in_order(file)
        except OSError as error:
            raise _unreadable(path, (error.strerror or "cannot be read").lower()) from None
        if not first:
            raise _unreadable(path, "its first line is empty")
        if not in_order:
            raise _unreadable(path, "its lines are too long or not in the order of bytes (LC_ALL=C sort -u)")
        self._hashed = _SHA1_LINE.fullmatch(first) is not None

    async def holds_soon(self, password: str) -> bool:
        """Returns whether a password is in the file; searches in a thread. Raises Unavailable."""
        try:
            return await asyncio.to_thread(self.holds, password)
        except OSError:
            raise Unavailable(
                (
                    "the list of stolen passwords cannot be read, so no password can be set: check the "
                    f"server's {PREFIX}PASSWORD_BREACHED_FILE"
                ),
                reason="BREACHED_LIST_UNREADABLE",
            ) from None

    def holds(self, password: str) -> bool:
        """Returns whether a password is in the file; blocks. Raises OSError."""
        wanted = password.encode()
        if self._hashed:
            # The list uses SHA-1; the security of the server does not depend on this hash.
            wanted = hashlib.sha1(wanted, usedforsecurity=False).hexdigest().upper().encode()
        with self._path.open("rb") as file:
            return self._search(file, wanted)

    def _search(self, file: BinaryIO, wanted: bytes) -> bool:
        """Returns whether the file contains the line; halves the range where the line can begin until it is empty."""
        low, high = 0, file.seek(0, 2)
        while low < high:
            middle = (low + high) // 2
            begin, line = _line_from(file, middle)
            if line is None or self._key(line) > wanted:
                high = middle
            elif self._key(line) < wanted:
                low = begin + len(line)
            else:
                return True
        return False

    def _key(self, line: bytes) -> bytes:
        stripped = line.rstrip(b"\r\n")
        return stripped.partition(b":")[0] if self._hashed else stripped


def _line_from(file: BinaryIO, place: int) -> tuple[int, bytes | None]:
    """Returns the first line that begins at or after `place`, preceded by where it begins; None if there is none."""
    if place:
        # Skip the rest of the line that contains the byte before `place`.
        file.seek(place - 1)
        file.readline(_LONGEST_LINE)
    else:
        file.seek(0)
    begin = file.tell()
    return begin, file.readline(_LONGEST_LINE) or None


def _is_in_order(file: BinaryIO) -> bool:
    """Returns whether sampled lines over the whole file are in order."""
    former = b""
    for line in _samples(file):
        if len(line) >= _LONGEST_LINE or line.rstrip(b"\r\n") < former:
            return False
        former = line.rstrip(b"\r\n")
    return True


def _samples(file: BinaryIO) -> Iterator[bytes]:
    length = file.seek(0, 2)
    for number in range(_LOOKED_AT):
        _, line = _line_from(file, length * number // _LOOKED_AT)
        if line is not None:
            yield line


def _unreadable(path: Path, why: str) -> SettingsError:
    return SettingsError(f"{PREFIX}PASSWORD_BREACHED_FILE: {path}: {why}")
