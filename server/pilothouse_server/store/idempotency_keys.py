"""Finds the stored response to a replayed `request_id`.

It also prevents two calls from serving it concurrently.

`put_changes` writes the rows with the responses together with the change itself, and only their primary key ensures
that a request happens once. This module saves a second call the work and the refusal: the call finds that the
request is being served, returns its connection, and checks again later.

A call that works in one transaction from its first check on holds an advisory lock, which always ends with the
transaction. A call that waits for something else (a cluster) holds no transaction: it inserts a row of
`request_claims` with its operation and its deadline. After the deadline the row is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from pilothouse_server.errors import Aborted
from pilothouse_server.store.errors import register_constraint, translated
from pilothouse_server.store.unit_of_work import ReadTransaction, UnitOfWork

# The statement's snapshot may be slightly older than the lock. If another call committed in between, the primary key
# refuses the second row.
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
    """Returns the error for a call whose `request_id` another call is serving."""
    return Aborted(
        "another call with this request_id is in progress, try again",
        reason="CONCURRENT_CHANGE",
        retry_after_seconds=0.1,
    )


register_constraint("pk_idempotency_keys", being_served)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The request and the response that are stored under an id."""

    method: str
    request_hmac: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a check.

    If there is no `answer` and the id is not `ours`, another call is serving the request.
    """

    answer: StoredAnswer | None
    ours: bool


class Replayed(Exception):
    """The request was served before; the idempotency layer returns this response."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__()
        self.answer = answer


class BeingServed(Exception):
    """Another call is serving the request; the idempotency layer tries this one again."""


def settle(found: Look) -> None:
    """Returns normally if this call must serve the request.

    Raises:
        Replayed: the request was served before.
        BeingServed: another call is serving the request.
    """
    if found.answer is not None:
        raise Replayed(found.answer)
    if not found.ours:
        raise BeingServed


async def look(transaction: ReadTransaction, user_id: int, request_id: UUID) -> Look:
    """Returns the stored response, and whether this transaction locked the id.

    It does not wait for the lock.
    """
    with translated():
        named = {"key": f"{user_id}/{request_id}", "user_id": user_id, "request_id": request_id}
        return _found((await transaction.connection.execute(_LOOK, named)).one())


async def claim(unit: UnitOfWork, user_id: int, request_id: UUID, owner: UUID, seconds: float) -> Look:
    """Returns the stored response, and whether `owner` has now claimed the id.

    The claim lasts `seconds`. It runs in its own transaction.
    """
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
