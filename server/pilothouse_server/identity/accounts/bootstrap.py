"""The setup of identity at a server's start: the shipped roles, and the first administrator.

The shipped roles are updated at each start. The administrator `admin` is created once in the life of a database. Its
row remains after it is deleted and shows that it existed, so a later start does not create it again with a known
password. An advisory lock serialises replicas that start together. All changes and their audit records are written in
one transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from pilothouse_server.errors import InvalidArgument, Unavailable
from pilothouse_server.identity.access.repository import grants, roles
from pilothouse_server.identity.access.shipped_roles import ADMIN, SHIPPED_ROLES
from pilothouse_server.identity.accounts.repository import users
from pilothouse_server.identity.model import User, UserId
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.errors import translated
from pilothouse_server.store.unit_of_work import Actor, Store, Transaction
from pilothouse_server.values.actors import RESERVED_USERNAMES, SYSTEM

log = structlog.get_logger(__name__)

ADMINISTRATOR: Final = "admin"
_EMAIL: Final = "admin@pilothouse.invalid"
_ACTOR: Final = Actor(None, SYSTEM)


class BootstrapPasswords(Protocol):
    """Checks and hashes the administrator's password; `NewPasswords` of `credentials` implements it."""

    async def check(self, field: str, password: str, username: str) -> None:
        """Checks a new password.

        Raises:
            InvalidArgument: the password in `field` breaks a rule.
            Unavailable: the password cannot be checked now.
        """
        ...

    async def hash_checked(self, password: str, who: str) -> str:
        """Returns the hash of a password that was checked."""
        ...


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The result of the setup.

    `random_password` is set if an administrator was created without a given password. It is stored nowhere else, so the
    caller must show it once.
    """

    administrator_created: bool
    random_password: str | None = field(default=None, repr=False)


async def bootstrap(store: Store, passwords: BootstrapPasswords, given_password: str) -> Bootstrap:
    """Updates the shipped roles, and creates the administrator if there never was one.

    `given_password` is accepted even if it is weak; '' means a random password.

    Raises:
        Unavailable: the database cannot be reached.
    """
    password, password_hash = given_password or secrets.token_urlsafe(24), None
    async with store.system_read() as looking:
        had = await users.had_bootstrap(looking)
        for username in await users.of_names(looking, RESERVED_USERNAMES):
            log.warning(
                "a user has a name that is reserved for the server itself: make another user in its place",
                username=username,
            )
    if not had:
        if given_password:
            await _warn_of_weak(passwords, given_password)
        # Before the transaction, so that no connection is held while waiting for a hash.
        password_hash = await passwords.hash_checked(password, "bootstrap")
    records: list[AuditRecord] = []
    unit = store.system_unit(_ACTOR)
    try:
        transaction = await unit.begin()
        with translated():
            await grants.lock_administrators(transaction)
            await _put_roles(transaction, records)
            made = Bootstrap(administrator_created=False)
            if password_hash is not None and not await users.had_bootstrap(transaction):
                await _make_administrator(transaction, password_hash, records)
                made = Bootstrap(True, None if given_password else password)
            if records:
                await grants.notify_changed(transaction)
    except BaseException:
        await unit.rollback()
        raise
    await unit.commit(audit=records)
    return made


async def _warn_of_weak(passwords: BootstrapPasswords, given_password: str) -> None:
    """Logs the rule that the password breaks.

    The password is not refused: the operator has chosen it, and nobody could log in without it.
    """
    try:
        await passwords.check("bootstrap_password", given_password, ADMINISTRATOR)
    except (InvalidArgument, Unavailable) as problem:
        log.warning("the bootstrap password is weak or cannot be checked: change it", rule=problem.message)


async def _put_roles(transaction: Transaction, records: list[AuditRecord]) -> None:
    for shipped in SHIPPED_ROLES.values():
        if await roles.put_shipped(transaction, shipped):
            records += [system_record(transaction, "update", "role", shipped.name)]


async def _make_administrator(
    transaction: Transaction, password_hash: str, records: list[AuditRecord]
) -> None:
    wanted = User(
        id=UserId(0), uid="", username=ADMINISTRATOR, email=_EMAIL, full_name="Bootstrap administrator"
    )
    created = await users.insert_user(transaction, wanted, password_hash, is_bootstrap=True)
    role = await roles.find(transaction, ADMIN)
    assert role is not None, "the shipped roles were put there before"
    await grants.put(transaction, created.id, role.id, None, None)
    records.append(system_record(transaction, "create", "user", created.username, created.id))
    records.append(system_record(transaction, "grant", "role_grant", created.username))


_BOOTSTRAP: Final[Mapping[str, Any]] = {"bootstrap": True}


def system_record(
    transaction: Transaction,
    action: str,
    resource_type: str,
    name: str,
    resource_id: int | None = None,
    *,
    metadata: Mapping[str, Any] = _BOOTSTRAP,
) -> AuditRecord:
    """Returns the audit record of a change that no call requested; `metadata` names its cause."""
    return AuditRecord(
        operation_id=transaction.operation_id,
        username=_ACTOR.username,
        action=action,
        resource_type=resource_type,
        resource_id=resource_id,
        resource_name=name,
        status_code=200,
        started_at=transaction.now,
        completed_at=datetime.now(UTC),
        metadata=metadata,
    )
