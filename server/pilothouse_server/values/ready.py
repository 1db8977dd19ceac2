"""What a read answers of a resource without rendering it."""

from __future__ import annotations

import msgspec


class Ready(msgspec.Struct, frozen=True):
    """The part of a resource's message that is kept beside its row, and what is added to it.

    `message` is None where none is kept that can be shown: the row has to be rendered. `created_by` is a name, None
    where nobody's or not visible.
    """

    id: int
    namespace_id: int
    created_by: str | None
    message: bytes | None
