"""Begins console sessions without a gateway, as a login through one does."""

from __future__ import annotations

from pilothouse_server.identity.credentials.operations.session_tokens import SessionTokens
from pilothouse_server.identity.model import LoginOrigin, SessionMethod, UserId
from tests.identity.server import Caller, IdentityServer, settings_of

ORIGIN = LoginOrigin("10.1.2.3", "10.1.2.3", "a browser", console=True)


async def begin(server: IdentityServer, username: str, method: SessionMethod = "password") -> Caller:
    """Returns a caller with a new console session of a user."""
    issuer = SessionTokens(settings_of(server.database))
    async with server.database.system() as connection:
        user_id = await connection.fetchval("SELECT id FROM users WHERE username = $1", username)
    async with server.store.system_write("login") as transaction:
        issued = await issuer.begin(transaction, UserId(user_id), ORIGIN, method)
    assert issued.refresh_token == ""
    return Caller(server.stub, issued.access_token)
