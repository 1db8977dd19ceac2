"""The interface through which federation begins and ends sessions of users that an issuer vouches for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from pilothouse_server.identity.model import IssuedTokens, LoginOrigin, SessionMethod, ShortToken, UserId
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class SessionStarter(Protocol):
    """Begins and ends sessions; `SessionTokens` of `credentials` implements it."""

    async def begin(
        self,
        transaction: Transaction,
        user_id: UserId,
        origin: LoginOrigin,
        method: SessionMethod,
        proved_at: datetime | None = None,
    ) -> IssuedTokens:
        """Begins a session; `method` is how the user logged in, `proved_at` when the user's identity was proved."""
        ...

    async def begin_short(
        self,
        transaction: Transaction,
        user_id: UserId,
        origin: LoginOrigin,
        method: SessionMethod,
        life: timedelta,
    ) -> ShortToken:
        """Begins a session that ends with its access token."""
        ...

    async def family_of(self, transaction: ReadTransaction, issued: IssuedTokens) -> UUID:
        """Returns the id of the session that a pair of tokens was just issued for."""
        ...

    async def end(self, transaction: Transaction, user_id: UserId, family_id: UUID) -> None:
        """Ends a session of a user whose row is locked."""
        ...
