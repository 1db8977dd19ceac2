"""Looks for the answer to a replayed `request_id`; rows are written by `put_changes` with the
change itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from pilothouse_server.errors import Aborted
from pilothouse_server.store.errors import register_constraint, translated
from pilothouse_server.store.unit_of_work import ReadTransaction

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
_FIND = text(
    "SELECT method, request_hmac, response FROM idempotency_keys WHERE user_id = :user_id AND request_id = :request_id"
)
# Nearly always nobody else serves the request: the lock and the look in one round trip. The look may be older than the
# lock by a moment in which another one committed; the primary key then refuses the second row.
_LOCK_AND_FIND = text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended(:key, 0)) AS locked, k.method, k.request_hmac, k.response "
    "FROM (SELECT) AS always "
    "LEFT JOIN idempotency_keys AS k ON k.user_id = :user_id AND k.request_id = :request_id"
)


def _served_meanwhile() -> Aborted:
    return Aborted(
        "the request was served at this very moment, try again",
        reason="CONCURRENT_CHANGE",
        retry_after_seconds=0.1,
    )


register_constraint("pk_idempotency_keys", _served_meanwhile)


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
    key = f"{user_id}/{request_id}"
    named = {"user_id": user_id, "request_id": request_id}
    with translated():
        row: Any = (await transaction.connection.execute(_LOCK_AND_FIND, {"key": key, **named})).one()
        if not row.locked:
            await transaction.connection.execute(_LOCK, {"key": key})
            row = (await transaction.connection.execute(_FIND, named)).one_or_none()
    if row is None or row.method is None:
        return None
    return StoredAnswer(row.method, row.request_hmac, row.response)
