"""The rules of grants: the giver of a role must hold all its permissions, in the same scope and for as long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.errors import FailedPrecondition, invalid, not_found
from pilothouse_server.identity.access.grant_simulation import PermissionChange, changes, same_grant
from pilothouse_server.identity.access.operations import roles
from pilothouse_server.identity.access.operations.escalation_guard import (
    check_caller_covers,
    last_administrator,
)
from pilothouse_server.identity.access.operations.scope import scope_of
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.model import Role, RoleGrant, User
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

READING_GRANTS = "grant.list"

# Returns the existing user of a name, or raises NotFound. `accounts` implements it.
LocateUser = Callable[[ReadTransaction, str], Awaitable[User]]


find_named = grants.find_named
list_in = grants.list_grants


async def grant(
    transaction: Transaction,
    caller: Principal,
    username: str,
    role_name: str,
    namespace: str,
    expires_at: datetime | None,
    locate_user: LocateUser,
) -> RoleGrant:
    """Grants a role in a namespace, or over all namespaces if that is empty; granting again changes the grant's end.

    Raises:
        InvalidArgument: `expires_at` has passed.
        NotFound: the namespace, the user or the role does not exist, or the caller may not see it.
        PermissionDenied: ESCALATION, the role holds permissions that the caller does not hold there for as
            long.
        FailedPrecondition: LAST_ADMINISTRATOR, the grant of the last permanent administrator would get an end.
    """
    namespace_id = await _future_scope(transaction, namespace, expires_at)
    if namespace_id is None:
        await grants.lock_administrators(transaction)
    user = await locate_user(transaction, username)
    role, _ = await _check(transaction, caller, user, role_name, (namespace, namespace_id), expires_at)
    await grants.put(transaction, user.id, role.id, namespace_id, expires_at)
    await grants.notify_changed(transaction)
    granted = await grants.find(transaction, user.id, role.id, namespace_id)
    assert granted is not None, "it was just put there"
    return granted


@dataclass(frozen=True, slots=True)
class Simulated:
    """The changes that a grant would make.

    `partial`: grants that the caller may not read were not considered.
    """

    changes: tuple[PermissionChange, ...]
    granted_already: bool
    partial: bool


async def simulate(
    transaction: ReadTransaction,
    caller: Principal,
    username: str,
    role_name: str,
    namespace: str,
    expires_at: datetime | None,
    words: PermissionWords,
    locate_user: LocateUser,
) -> Simulated:
    """Returns the changes that `grant` would make to the user's permissions; raises as `grant`, and writes nothing.

    Only grants of the user that the caller may read are considered, so the result reveals nothing about other grants.
    """
    namespace_id = await _future_scope(transaction, namespace, expires_at)
    user = await locate_user(transaction, username)
    _, wanted = await _check(transaction, caller, user, role_name, (namespace, namespace_id), expires_at)
    readable = caller.namespaces_with(READING_GRANTS)
    held = [
        grant
        for grant in await grants.held_by(transaction, user.id, whatever_status=True)
        if readable is None or grant.namespace_id in readable
    ]
    return Simulated(
        changes(held, wanted, words), same_grant(held, wanted) is not None, partial=readable is not None
    )


async def revoke(
    transaction: Transaction, username: str, role_name: str, namespace: str, locate_user: LocateUser
) -> RoleGrant:
    """Revokes a grant.

    Raises:
        NotFound: the namespace, the user, the role or the grant.
        FailedPrecondition: LAST_ADMINISTRATOR; GIVEN_BY_RULE, an issuer's rules would give it again.
    """
    namespace_id = await scope_of(transaction, namespace)
    if namespace_id is None:
        await grants.lock_administrators(transaction)
    user = await locate_user(transaction, username)
    role = await roles.locate(transaction, role_name)
    found = await grants.find(transaction, user.id, role.id, namespace_id)
    if found is None:
        raise not_found("role grant", role_name)
    if found.source:
        raise FailedPrecondition(
            (
                f'a rule of the issuer "{found.source}" gives this grant and would give it again: remove '
                "the user from the group there, change the rule, or make the user inactive"
            ),
            reason="GIVEN_BY_RULE",
            metadata={"issuer": found.source},
        )
    if namespace_id is None:
        await _check_not_last_administrator(transaction, user, role)
    await grants.delete_grant(transaction, found.id)
    await grants.notify_changed(transaction)
    return found


async def end_in_namespace(transaction: Transaction, namespace_id: int) -> None:
    """Removes every grant in a namespace."""
    await grants.delete_of_namespace(transaction, namespace_id)


async def held_by_user(transaction: ReadTransaction, user_id: int) -> tuple[Grant, ...]:
    """Returns the valid grants of a user; none if the user may not log in."""
    return await grants.held_by(transaction, user_id)


async def callers_changed(transaction: Transaction) -> None:
    """Makes every server load its callers again when the transaction commits."""
    await grants.notify_changed(transaction)


async def of_caller(transaction: ReadTransaction, caller: Principal) -> list[RoleGrant]:
    """Returns the caller's valid grants, oldest first.

    For a caller with a key, returns the part of each grant that the key gives: one for each of the key's namespaces.
    """
    found = await grants.of_user(transaction, caller.user_id)
    if caller.credential.limits is None:
        return found
    left = caller.living_grants()
    return [
        msgspec.structs.replace(each, namespace=kept.namespace or "", namespace_id=kept.namespace_id)
        for each in found
        for kept in left
        if kept.id == each.id
    ]


async def _future_scope(
    transaction: ReadTransaction, namespace: str, expires_at: datetime | None
) -> int | None:
    if expires_at is not None and expires_at <= await transaction.moment():
        raise invalid("expire_time", "must be in the future", reason="EXPIRED")
    return await scope_of(transaction, namespace)


async def _check(
    transaction: ReadTransaction,
    caller: Principal,
    user: User,
    role_name: str,
    place: tuple[str, int | None],
    expires_at: datetime | None,
) -> tuple[Role, Grant]:
    """Returns the role and the grant if the caller may give it to the user; see `grant`."""
    namespace, namespace_id = place
    role = await roles.locate(transaction, role_name)
    wanted = grants.as_held(role, namespace, namespace_id, expires_at)
    await check_caller_covers(transaction, caller, [wanted], f'role "{role.name}"')
    if namespace_id is None and expires_at is not None:
        await _check_not_last_administrator(transaction, user, role)
    return role, wanted


async def _check_not_last_administrator(transaction: ReadTransaction, user: User, role: Role) -> None:
    administrators = await grants.administrators(transaction)
    if administrators and all(
        grant.user_id == user.id and grant.role_id == role.id for grant in administrators
    ):
        raise last_administrator(user.username)
