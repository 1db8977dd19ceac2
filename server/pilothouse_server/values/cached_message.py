"""A resource as its stored message: a read shows it without rendering the row."""

from __future__ import annotations

import msgspec


class CachedMessage(msgspec.Struct, frozen=True):
    """The part of a resource's message that is stored next to its row, and the values that are added to it.

    `message` is None if none is stored that may be shown: the row has to be rendered. `created_by` is the creator's
    name; None if there is none, or the caller does not see that user.
    """

    id: int
    namespace_id: int
    created_by: str | None
    message: bytes | None
