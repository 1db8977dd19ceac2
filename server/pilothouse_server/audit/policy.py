"""The witness policy: the witnesses that sign the heads of the audit log, and how many of them have to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pilothouse_server.audit import notes
from pilothouse_server.audit.notes import NoteError, Verifier
from pilothouse_server.settings.model import PREFIX, SettingsError

_VARIABLE = f"{PREFIX}AUDIT_WITNESSES"
MOST_WITNESSES = 15


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness: its key, and the prefix of its address."""

    key: Verifier
    url: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The witnesses, and the number of them that have to sign a head."""

    wanted: int = 0
    witnesses: Sequence[Witness] = ()

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Reads `K of KEY@URL, KEY@URL`; '' means no witnesses. Raises SettingsError."""
        if not text.strip():
            return cls()
        number, separator, rest = text.partition(" of ")
        witnesses = [_witness(part.strip()) for part in rest.split(",")]
        wanted = int(number) if number.strip().isdecimal() else 0
        if not separator or not 1 <= wanted <= len(witnesses) <= MOST_WITNESSES:
            raise SettingsError(
                f"{_VARIABLE}: must be `K of KEY@URL, KEY@URL, ...`, K from 1 to their number, at most {MOST_WITNESSES}"
            )
        return cls(wanted, witnesses)

    def signed_by(self, note: str) -> list[Verifier]:
        """Returns the witnesses with a valid signature in a note."""
        checkpoint, signatures = notes.parse(note)
        keys = {(each.key.name, each.key.key_id): each.key for each in self.witnesses}
        found = {}
        for name, value in signatures:
            key = keys.get((name, value[:4]))
            if key is not None and key.verifies(checkpoint.text, value[4:]):
                found[key.key_id] = key
        return list(found.values())

    def met_by(self, note: str) -> bool:
        """Returns whether enough witnesses have signed."""
        return self.wanted == 0 or len(self.signed_by(note)) >= self.wanted


def _witness(text: str) -> Witness:
    key, separator, url = text.rpartition("@")
    parts = urlsplit(url)
    if not separator or parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise SettingsError(
            f"{_VARIABLE}: each witness must be KEY@URL, with an http or https URL without a query"
        )
    try:
        verifier = Verifier.parse(key)
    except NoteError as error:
        raise SettingsError(f"{_VARIABLE}: {error}") from None
    if not verifier.witness:
        raise SettingsError(f"{_VARIABLE}: the key of {verifier.name} must be a witness key, not a log key")
    return Witness(verifier, url.rstrip("/"))
