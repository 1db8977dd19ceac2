"""The messages of resources that are kept beside their rows, and answer reads without being rendered again.

A change renders its resource for the event; `put_changes` keeps a part of those bytes in `rendered_messages`, with
the `row_version` of the row that it was rendered from and the `format` of this release. A reader compares both and
renders the row where they differ. What changes without the row (a name of another row, a time that passes) is not in
the part that is kept; a noun adds it when it is read.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Versioned(Protocol):
    """A resource whose row counts its writes."""

    @property
    def id(self) -> int:
        """The id of the row."""

    @property
    def row_version(self) -> int:
        """The version of the row that it was read from, or written as."""


class Rendered(NamedTuple):
    """A resource as its event holds it; `kept_bytes` from `kept_at` on are kept beside the row, none where that is 0.

    `format` grows with each release that renders more.
    """

    message: bytes
    format: int = 0
    kept_at: int = 0
    kept_bytes: int = 0

    def place(self, entity: Versioned) -> dict[str, int]:
        """Which part is kept, and of what, as `put_changes` reads it beside an event."""
        return {
            "row_version": entity.row_version,
            "format": self.format,
            "kept_at": self.kept_at,
            "kept_bytes": self.kept_bytes,
        }

    @property
    def kept(self) -> bytes:
        """The part that is kept."""
        return self.message[self.kept_at : self.kept_at + self.kept_bytes]
