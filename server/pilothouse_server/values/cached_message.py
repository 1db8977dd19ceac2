"""A resource as its cached message, which a read returns without rendering the row."""

from __future__ import annotations

import msgspec


class CachedMessage(msgspec.Struct, frozen=True):
    """The part of a resource's message that is stored next to its row, and the values that are added to it.

    `message`: None if no current message is stored, so that the row has to be rendered. `created_by`: the creator's
    name; None if there is none or the caller may not see that user.
    """

    id: int
    namespace_id: int
    created_by: str | None
    message: bytes | None
