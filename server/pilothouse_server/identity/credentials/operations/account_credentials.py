"""The sessions and API keys of a user, and how they end with the user or a namespace."""

from __future__ import annotations

from uuid import UUID

from pilothouse_server.identity.access.operations import grants
from pilothouse_server.identity.accounts.operations import service_accounts
from pilothouse_server.identity.credentials.repository import api_keys, sessions
from pilothouse_server.identity.model import UserId
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class SessionsAndKeys:
    """Ends and counts a user's sessions and API keys; implements `AccountCredentials` of `accounts`."""

    async def end_sessions(
        self, transaction: Transaction, user_id: UserId, *, keep: UUID | None = None
    ) -> None:
        """Ends all sessions of a user except `keep`."""
        await sessions.revoke_of_user(transaction, user_id, keep=keep)

    async def end_api_keys(self, transaction: Transaction, user_id: UserId) -> None:
        """Ends all API keys of a user."""
        await api_keys.revoke_of_user(transaction, user_id)

    async def count_api_keys(self, transaction: ReadTransaction, user_id: UserId) -> int:
        """Returns how many API keys of a user are valid."""
        return await api_keys.count(transaction, user_id)


async def end_in_namespace(transaction: Transaction, namespace_id: int) -> None:
    """Removes every grant in a namespace, and ends its service accounts with their keys."""
    await grants.end_in_namespace(transaction, namespace_id)
    await api_keys.revoke_of_namespace(transaction, namespace_id)
    await service_accounts.end_in_namespace(transaction, namespace_id)
    await grants.callers_changed(transaction)
