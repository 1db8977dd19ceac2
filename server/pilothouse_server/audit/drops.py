"""The ranges of records that retention dropped, listed in its records and signed by the keys of the log.

Somebody with all rights on the database can delete records and write a record as retention does. So such a record
counts only if a key of the log has signed it, as a signed note (C2SP signed-note):

    <name of the log>
    dropped
    <first> <last>                 a line for each range of the log: the sequences of its first and last record

    — <key name> <base64(key id ‖ signature)>

The record's metadata contains the ranges as `dropped` and the signature lines as `signatures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilothouse_server.audit import notes
from pilothouse_server.audit.notes import NoteError, Verifier
from pilothouse_server.audit.repository import Stretch
from pilothouse_server.store import audit_records


def text(name: str, dropped: Sequence[Stretch]) -> str:
    """Returns the text that the keys sign."""
    lines = "".join(f"{first:d} {last:d}\n" for first, last in dropped)
    return f"{name}\ndropped\n{lines}"


def signed_by(metadata: Mapping[str, Any], verifiers: Iterable[Verifier]) -> list[Verifier]:
    """Returns the keys among `verifiers` that have signed the dropped ranges in a record's metadata."""
    try:
        lines = [notes.signature_line(line) for line in metadata["signatures"].splitlines()]
        return [
            key
            for key in verifiers
            if any(
                (signer, value[:4]) == (key.name, key.key_id)
                and key.verifies(text(key.name, metadata["dropped"]), value[4:])
                for signer, value in lines
            )
        ]
    except (NoteError, KeyError, TypeError, ValueError, AttributeError):
        return []


def newest(records: Iterable[Mapping[str, Any]], verifiers: Sequence[Verifier]) -> Mapping[str, Any] | None:
    """Returns the first of these metadata (newest first) that a key has signed; None if there is none."""
    return next((each for each in records if signed_by(each, verifiers)), None)


def exported(records: Iterable[Mapping[str, Any]], verifiers: Sequence[Verifier]) -> str:
    """Returns the newest signed metadata as JSON, with only the fields `dropped` and `signatures`; '' without any."""
    told = newest(records, verifiers)
    if told is None:
        return ""
    return audit_records.canonical_json({name: told[name] for name in ("dropped", "signatures")}).decode()


class Dropped:
    """The ranges that retention has dropped, from the newest record that the log has signed.

    `records` has the newest first.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = (), verifiers: Sequence[Verifier] = ()) -> None:
        believed = newest(records, verifiers) or {"dropped": []}
        self._ranges = [(int(first), int(last)) for first, last in believed["dropped"]]

    def holds(self, first: int, last: int) -> bool:
        """Returns whether all of a range was dropped."""
        return any(low <= first and last <= high for low, high in self._ranges)
