"""The rules of sessions that are there: everybody sees and ends their own."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pilothouse_server.access import Principal
from pilothouse_server.errors import FailedPrecondition, not_found
from pilothouse_server.identity.model import Session, UserId
from pilothouse_server.identity.repository import grants, sessions, users
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


async def log_out(transaction: Transaction, caller: Principal) -> None:
    """Ends the session of the token in use; one that has ended meanwhile stays ended.

    Raises:
        FailedPrecondition: the caller uses a key, which has no session.
    """
    if caller.session_id is None:
        raise FailedPrecondition(
            "this call uses an API key, which has no session to end: revoke the key", reason="NO_SESSION"
        )
    await _end(transaction, caller, caller.session_id)


async def revoke(transaction: Transaction, caller: Principal, session_id: UUID) -> None:
    """Ends one of the caller's own sessions.

    Raises:
        NotFound: none of the caller's living sessions.
    """
    if not await _end(transaction, caller, session_id):
        raise not_found("session", str(session_id))


async def list_own(
    transaction: ReadTransaction, caller: Principal, page: PageRequest
) -> tuple[Sequence[Session], NextPage]:
    """One page of the caller's own sessions, newest first, and where they go on."""
    return await sessions.list_sessions(transaction, UserId(caller.user_id), page)


async def _end(transaction: Transaction, caller: Principal, session_id: UUID) -> bool:
    # The row of the user first: see `login`.
    await users.get(transaction, caller.user_id, lock=True)
    lived = await sessions.revoke_family(transaction, UserId(caller.user_id), session_id)
    await grants.notify_changed(transaction)
    return lived
