"""The rules of existing sessions: users list and end their own, administrators those of other users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from pilothouse_server.authorization.access import Principal
from pilothouse_server.errors import FailedPrecondition, PermissionDenied, not_found
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.operations.users import check_untouched, locate
from pilothouse_server.identity.accounts.repository import users
from pilothouse_server.identity.credentials.repository import sessions
from pilothouse_server.identity.model import Session, User, UserId
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.names import normalise_username

# The permissions to see and to end other users' sessions; they are needed over all namespaces.
SEEING_OTHERS: Final = "user.get"
CHANGING_OTHERS: Final = "user.update"


async def log_out(transaction: Transaction, caller: Principal) -> None:
    """Ends the session of the token in use; a session that has already ended stays ended.

    Raises:
        FailedPrecondition: the caller uses a key, which has no session.
    """
    if caller.session_id is None:
        raise FailedPrecondition(
            "this call uses an API key or a certificate, which has no session to end: revoke that",
            reason="NO_SESSION",
        )
    await _end(transaction, UserId(caller.user_id), caller.session_id)


async def revoke(transaction: Transaction, caller: Principal, username: str, session_id: UUID) -> None:
    """Ends one of the caller's own sessions, or a session of the named user.

    Raises:
        NotFound: the user; or the user has no such session that is valid.
        PermissionDenied: `user.update` over all namespaces is needed; ESCALATION, the user holds permissions
            that the caller does not hold.
    """
    whose = await _whose(transaction, caller, username, CHANGING_OTHERS)
    if whose is not None:
        await check_untouched(transaction, caller, whose)
    user_id = UserId(caller.user_id) if whose is None else whose.id
    if not await _end(transaction, user_id, session_id):
        raise not_found("session", str(session_id))


async def list_page(
    transaction: ReadTransaction, caller: Principal, username: str, page: PageRequest
) -> tuple[Sequence[Session], NextPage]:
    """Returns one page of sessions, newest first, and where the next page begins.

    The sessions are the caller's own, or those of the named user.

    Raises:
        NotFound: the user.
        PermissionDenied: `user.get` over all namespaces is needed.
    """
    whose = await _whose(transaction, caller, username, SEEING_OTHERS)
    user_id = UserId(caller.user_id) if whose is None else whose.id
    return await sessions.list_sessions(transaction, user_id, page)


async def _whose(
    transaction: ReadTransaction, caller: Principal, username: str, permission: str
) -> User | None:
    """Returns the named user; None if that is the caller, or if no name is given.

    A caller without the permission does not learn which users exist.
    """
    if not username or normalise_username(username) == normalise_username(caller.username):
        return None
    if not caller.allows(permission):
        raise PermissionDenied(
            f"permission {permission} is needed over all namespaces for another user's sessions",
            reason="PERMISSION_DENIED",
            metadata={"permission": permission},
        )
    return await locate(transaction, username)


async def _end(transaction: Transaction, user_id: UserId, session_id: UUID) -> bool:
    # Lock the user's row first: see `login`.
    await users.get(transaction, user_id, lock=True)
    lived = await sessions.revoke_family(transaction, user_id, session_id)
    await grants.notify_changed(transaction)
    return lived
