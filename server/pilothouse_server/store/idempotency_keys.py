"""Looks for the answer to a replayed `request_id`, and keeps two calls from serving one at the same time.

The rows that answer are written by `put_changes` with the change itself, and their primary key alone decides
that a request happens once. This module spares a second caller the work and the refusal: it learns that the
request is being served, gives its connection back, and looks again later.

A call that works in one transaction from its first look holds an advisory lock, which ends with the
transaction in every case. A call that waits for something else (a cluster) holds no transaction: it leaves a
row of `request_claims` with its operation and its deadline. After that time the row counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from pilothouse_server.errors import Aborted
from pilothouse_server.store.errors import register_constraint, translated
from pilothouse_server.store.unit_of_work import ReadTransaction, UnitOfWork

# The look may be older than the lock by a moment in which another one committed; the primary key then refuses the
# second row.
_LOOK = text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended(:key, 0)) AS ours, k.method, k.request_hmac, k.response "
    "FROM (SELECT) AS always "
    "LEFT JOIN idempotency_keys AS k ON k.user_id = :user_id AND k.request_id = :request_id"
)
_CLAIM = text("""
WITH claimed AS (
    INSERT INTO request_claims AS c (user_id, request_id, owner, expires_at)
    SELECT :user_id, :request_id, :owner, clock_timestamp() + make_interval(secs => :seconds)
    WHERE NOT EXISTS (SELECT FROM idempotency_keys AS k WHERE k.user_id = :user_id AND k.request_id = :request_id)
    ON CONFLICT (user_id, request_id) DO UPDATE SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at
    WHERE c.expires_at < clock_timestamp() OR c.owner = EXCLUDED.owner
    RETURNING owner)
SELECT EXISTS (SELECT FROM claimed) AS ours, k.method, k.request_hmac, k.response
FROM (SELECT) AS always
LEFT JOIN idempotency_keys AS k ON k.user_id = :user_id AND k.request_id = :request_id
""")
_RELEASE = text(
    "DELETE FROM request_claims WHERE user_id = :user_id AND request_id = :request_id AND owner = :owner"
)


def being_served() -> Aborted:
    """The error for a call whose `request_id` another one serves at this moment."""
    return Aborted(
        "the request is being served at this very moment, try again",
        reason="CONCURRENT_CHANGE",
        retry_after_seconds=0.1,
    )


register_constraint("pk_idempotency_keys", being_served)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The request and the answer that are stored under an id."""

    method: str
    request_hmac: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a look. If there is no answer and it is not `ours` either, another call serves the
    request.
    """

    answer: StoredAnswer | None
    ours: bool


class Replayed(Exception):
    """The request was served before; the layer that keeps the ids returns this answer."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__()
        self.answer = answer


class BeingServed(Exception):
    """Another call serves the request; the layer that keeps the ids has this one try again."""


def settle(found: Look) -> None:
    """Returns where the request is the caller's to serve.

    Raises:
        Replayed, BeingServed: it is not.
    """
    if found.answer is not None:
        raise Replayed(found.answer)
    if not found.ours:
        raise BeingServed


async def look(transaction: ReadTransaction, user_id: int, request_id: UUID) -> Look:
    """The stored answer, and whether this transaction now has the lock of the id; it waits for nobody."""
    with translated():
        named = {"key": f"{user_id}/{request_id}", "user_id": user_id, "request_id": request_id}
        return _found((await transaction.connection.execute(_LOOK, named)).one())


async def claim(unit: UnitOfWork, user_id: int, request_id: UUID, owner: UUID, seconds: float) -> Look:
    """The stored answer, and whether `owner` has claimed the id for so many seconds; a transaction of its own."""
    named = {"user_id": user_id, "request_id": request_id, "owner": owner, "seconds": seconds}
    return _found(await _alone(unit, _CLAIM, named))


async def release(unit: UnitOfWork, user_id: int, request_id: UUID, owner: UUID) -> None:
    """Ends the owner's claim, in a transaction of its own."""
    await _alone(unit, _RELEASE, {"user_id": user_id, "request_id": request_id, "owner": owner})


async def _alone(unit: UnitOfWork, statement: Any, parameters: dict[str, Any]) -> Any:
    try:
        with translated():
            result = await (await unit.begin()).connection.execute(statement, parameters)
            row = result.one_or_none()
    except BaseException:
        await unit.rollback()
        raise
    await unit.commit()
    return row


def _found(row: Any) -> Look:
    answer = None if row.method is None else StoredAnswer(row.method, row.request_hmac, row.response)
    return Look(answer, bool(row.ours))
