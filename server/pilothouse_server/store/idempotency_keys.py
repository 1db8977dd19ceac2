"""Looks for the answer to a replayed `request_id`; rows are written by `append_changes` with the
change itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from pilothouse_server.store.errors import translated
from pilothouse_server.store.unit_of_work import ReadTransaction

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
_FIND = text(
    "SELECT method, request_hmac, response FROM idempotency_keys WHERE user_id = :user_id AND request_id = :request_id"
)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was asked and answered under an id."""

    method: str
    request_hmac: bytes
    response: bytes


async def find(transaction: ReadTransaction, user_id: int, request_id: UUID) -> StoredAnswer | None:
    """The stored answer; takes a lock first, so that a request that is being served under this id
    is waited for.
    """
    with translated():
        await transaction.connection.execute(_LOCK, {"key": f"{user_id}/{request_id}"})
        row = (
            await transaction.connection.execute(_FIND, {"user_id": user_id, "request_id": request_id})
        ).one_or_none()
    return None if row is None else StoredAnswer(row.method, row.request_hmac, row.response)
