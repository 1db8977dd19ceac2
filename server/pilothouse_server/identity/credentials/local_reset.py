"""Sets a password on the server's machine, for the case that nobody who may set it by a call can log in.

Anyone who can read the server's settings can access the database like the server, so no other proof is required here.
The reset ends the user's sessions and unlocks the account immediately. Its audit record names the user of the machine
who ran it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse_server.errors import not_found
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.bootstrap import system_record
from pilothouse_server.identity.accounts.repository import user_secrets, users
from pilothouse_server.identity.credentials.operations.login_throttle import forget_failures
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.credentials.repository import second_factors, sessions
from pilothouse_server.identity.model import User
from pilothouse_server.store.errors import translated
from pilothouse_server.store.unit_of_work import Actor, Store
from pilothouse_server.values.actors import SYSTEM
from pilothouse_server.values.names import is_service_account

_ACTOR: Final = Actor(None, SYSTEM)


async def reset_locally(
    store: Store,
    passwords: NewPasswords,
    username: str,
    password: str,
    done_by: Mapping[str, Any],
    *,
    without_factor: bool = False,
) -> User:
    """Sets a user's password and ends the user's sessions; returns the user.

    The audit record contains `done_by`. `without_factor` also removes the user's authenticator.

    Raises:
        NotFound: the user.
        InvalidArgument: a password that breaks a rule.
        Unavailable: the database cannot be reached.
    """
    # Before the transaction, so that no connection is held while waiting for a hash.
    password_hash = await passwords.hash("password", password, username, "local")
    unit = store.system_unit(_ACTOR)
    try:
        transaction = await unit.begin()
        with translated():
            stored = await users.find(transaction, username, lock=True)
            if stored is None or is_service_account(stored.username):
                raise not_found("user", username)
            await users.set_password(transaction, stored.id, password_hash)
            await sessions.revoke_of_user(transaction, stored.id)
            await forget_failures(transaction, stored.username)
            if without_factor:
                await second_factors.end(transaction, stored.id)
                await user_secrets.remove(transaction, stored.id, "totp")
            await grants.notify_changed(transaction)
            record = system_record(
                transaction, "reset", "user", stored.username, stored.id, metadata={"local": True, **done_by}
            )
    except BaseException:
        await unit.rollback()
        raise
    await unit.commit(audit=[record])
    return stored
