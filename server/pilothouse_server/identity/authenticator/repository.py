"""The SQL that loads the principal of a certificate's user."""

from __future__ import annotations

from sqlalchemy import bindparam

from pilothouse_server.authorization.access import Credential, Principal
from pilothouse_server.identity.access.repository.grants import FOREIGN_NAMESPACES, held, held_grants
from pilothouse_server.identity.tables import USERS
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.names import normalise_username

_PRINCIPAL = (
    held()
    .add_columns(FOREIGN_NAMESPACES)
    .where(USERS.c.username_normalized == bindparam("username"), USERS.c.status == "active")
)


async def load_principal(
    transaction: ReadTransaction, username: str, credential: Credential
) -> Principal | None:
    """Returns the principal of a user, with the grants; None if the user does not exist or may not log in.

    It runs one query, and needs no transaction around it.
    """
    rows = (
        await transaction.connection.execute(_PRINCIPAL, {"username": normalise_username(username)})
    ).all()
    if not rows:
        return None
    first = rows[0]
    return Principal(
        first.user_id,
        first.username,
        held_grants(rows),
        credential=credential,
        foreign_namespaces=frozenset(first.foreign_namespaces or ()),
    )
