"""A password set on the server's machine, for when nobody can log in any more who might set it by a call.

Whoever can read the server's settings reaches the database as the server does; no more is asked here. It ends the
user's sessions and lets the account be logged in to at once, and its record says who on the machine did it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse_server.errors import invalid, not_found
from pilothouse_server.identity.bootstrap import SHORTEST_PASSWORD, system_record
from pilothouse_server.identity.model import User
from pilothouse_server.identity.operations.login import forget_failures
from pilothouse_server.identity.passwords import Passwords
from pilothouse_server.identity.repository import grants, sessions, users
from pilothouse_server.store.errors import translated
from pilothouse_server.store.unit_of_work import Actor, Store
from pilothouse_server.values.names import normalise_username

LONGEST_PASSWORD: Final = 1024
_ACTOR: Final = Actor(None, "system")


async def reset_locally(
    store: Store, passwords: Passwords, username: str, password: str, done_by: Mapping[str, Any]
) -> User:
    """Sets a user's password and ends the user's sessions; `done_by` stands in the record. Returns the user.

    Raises:
        NotFound: the user.
        InvalidArgument: a password that is too short, too long, or the name.
        Unavailable: the database is away.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise invalid(
            "password",
            f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters",
            reason="WEAK_PASSWORD",
        )
    if normalise_username(password) == normalise_username(username):
        raise invalid("password", "must not be the user name", reason="WEAK_PASSWORD")
    # Outside of the transaction: nobody waits for a hash with a connection.
    password_hash = await passwords.hash(password)
    unit = store.system_unit(_ACTOR)
    try:
        transaction = await unit.begin()
        with translated():
            stored = await users.find(transaction, username, lock=True)
            if stored is None:
                raise not_found("user", username)
            await users.set_password(transaction, stored.id, password_hash)
            await sessions.revoke_of_user(transaction, stored.id)
            await forget_failures(transaction, stored.username)
            await grants.notify_changed(transaction)
            record = system_record(
                transaction, "reset", "user", stored.username, stored.id, metadata={"local": True, **done_by}
            )
    except BaseException:
        await unit.rollback()
        raise
    await unit.commit(audit=[record])
    return stored
