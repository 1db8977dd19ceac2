"""The tokens of a session: its first pair, and the pairs that follow at each refresh.

Sessions of all log-in methods begin here, so that they end, are renewed and are listed in the same way. No pair
outlives the session's greatest age, counted from the log-in.

A log-in proves the user's identity (`reauthentication`). Each refresh copies the time of the proof to the new pair.

A console session (`LoginOrigin.console`) has one credential instead of pairs. It does not rotate, so that several tabs
of a browser may use it concurrently: two concurrent refreshes would look like a replay. It ends after some hours
without use, and after some days at the latest. Issuers are asked about a session at its refreshes, which a console
session does not have. So a console session that began at an issuer ends as early as an access token, and the browser
logs in there again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from pilothouse_server.identity import tokens
from pilothouse_server.identity.credentials.repository import sessions
from pilothouse_server.identity.model import (
    ConsoleLives,
    IssuedTokens,
    LoginOrigin,
    SessionMethod,
    ShortToken,
    UserId,
)
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


class SessionTokens:
    """Issues tokens and stores their hashes."""

    def __init__(self, settings: Settings) -> None:
        self._access = timedelta(seconds=settings.session_access_seconds)
        self._refresh = timedelta(seconds=settings.session_refresh_seconds)
        self._greatest_age = timedelta(seconds=settings.session_max_age_seconds)
        self._console = console_lives(settings)

    async def begin(
        self,
        transaction: Transaction,
        user_id: UserId,
        origin: LoginOrigin,
        method: SessionMethod,
        proved_at: datetime | None = None,
    ) -> IssuedTokens:
        """Begins a session.

        `method` is how the user logged in; `proved_at` is the time of the proof of identity, None if it was just now.
        """
        family_id = uuid4()
        values = self._begun(transaction, family_id, user_id, origin, method)
        values["proved_at"] = min(proved_at or transaction.now, transaction.now)
        if origin.console:
            return await self._begin_console(transaction, family_id, values)
        return await self._issue(transaction, family_id, values)

    async def begin_short(
        self,
        transaction: Transaction,
        user_id: UserId,
        origin: LoginOrigin,
        method: SessionMethod,
        life: timedelta,
    ) -> ShortToken:
        """Begins a session that ends with its access token: it has no refresh token."""
        family_id = uuid4()
        token = tokens.new_token(tokens.ACCESS_PREFIX)
        expires_at = transaction.now + min(life, self._greatest_age)
        await sessions.insert_session(
            transaction,
            {
                **self._begun(transaction, family_id, user_id, origin, method),
                "family_id": family_id,
                **_only_token(token),
                "access_expires_at": expires_at,
                "refresh_expires_at": expires_at,
                "last_used_at": transaction.now,
            },
        )
        return ShortToken(token, expires_at)

    async def family_of(self, transaction: ReadTransaction, issued: IssuedTokens) -> UUID:
        """Returns the id of the session that a pair of tokens was just issued for."""
        return await sessions.family_of(transaction, tokens.token_hash(issued.access_token))

    async def end(self, transaction: Transaction, user_id: UserId, family_id: UUID) -> None:
        """Ends a session of a user whose row is locked."""
        await sessions.revoke_family(transaction, user_id, family_id)

    async def go_on(self, transaction: Transaction, used: Row) -> IssuedTokens:
        """Issues the next pair of tokens; `used` is the row of the pair whose refresh token was just used."""
        session_id = uuid4()
        issued = await self._issue(
            transaction,
            used.family_id,
            {
                "id": session_id,
                "user_id": used.user_id,
                "created_at": used.created_at,
                "client_ip": used.client_ip,
                "user_agent": used.user_agent,
                "method": used.method,
                "proved_at": used.proved_at,
            },
        )
        await sessions.set_replaced_by(transaction, used.id, session_id)
        return issued

    async def _begin_console(
        self, transaction: Transaction, family_id: UUID, values: dict[str, Any]
    ) -> IssuedTokens:
        token = tokens.new_token(tokens.CONSOLE_PREFIX)
        idle = self._access if values["method"] == "oidc" else self._console.idle
        end = transaction.now + min(idle, self._console.most)
        await sessions.insert_session(
            transaction,
            {
                **values,
                **_only_token(token),
                "family_id": family_id,
                "access_expires_at": end,
                "refresh_expires_at": end,
                "last_used_at": transaction.now,
                "console": True,
            },
        )
        return IssuedTokens(token, end, "", end)

    @staticmethod
    def _begun(
        transaction: Transaction, family_id: UUID, user_id: UserId, origin: LoginOrigin, method: SessionMethod
    ) -> dict[str, Any]:
        """Returns the columns that describe the session in the row of its first tokens."""
        return {
            "id": family_id,
            "user_id": user_id,
            "created_at": transaction.now,
            "client_ip": origin.client_ip[:45] or None,
            "user_agent": origin.user_agent or None,
            "method": method,
        }

    async def _issue(self, transaction: Transaction, family_id: UUID, values: dict[str, Any]) -> IssuedTokens:
        """Makes a pair of tokens that does not outlive the session's greatest age, and stores its hashes."""
        end: datetime = values["created_at"] + self._greatest_age
        issued = IssuedTokens(
            access_token=tokens.new_token(tokens.ACCESS_PREFIX),
            access_expires_at=min(transaction.now + self._access, end),
            refresh_token=tokens.new_token(tokens.REFRESH_PREFIX),
            refresh_expires_at=min(transaction.now + self._refresh, end),
        )
        await sessions.insert_session(
            transaction,
            {
                **values,
                "family_id": family_id,
                "access_token_hash": tokens.token_hash(issued.access_token),
                "refresh_token_hash": tokens.token_hash(issued.refresh_token),
                "access_expires_at": issued.access_expires_at,
                "refresh_expires_at": issued.refresh_expires_at,
                "last_used_at": transaction.now,
            },
        )
        return issued


def console_lives(settings: Settings) -> ConsoleLives:
    """Returns the lifetimes of console sessions from the settings."""
    return ConsoleLives(
        timedelta(seconds=settings.console_idle_seconds), timedelta(seconds=settings.console_max_age_seconds)
    )


def _only_token(token: str) -> dict[str, bytes]:
    """Returns the token columns of a session with this token only: nobody receives its random refresh token."""
    return {
        "access_token_hash": tokens.token_hash(token),
        "refresh_token_hash": tokens.token_hash(tokens.new_token(tokens.REFRESH_PREFIX)),
    }
