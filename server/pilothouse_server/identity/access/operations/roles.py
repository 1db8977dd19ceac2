"""The rules of roles: shipped roles cannot be changed, and no role holds more than its creator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pilothouse_server.authorization.access import Principal
from pilothouse_server.errors import FailedPrecondition, already_exists, missing, not_found
from pilothouse_server.identity.access.operations.escalation_guard import check_caller_covers
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.access.repository import grants, roles
from pilothouse_server.identity.model import Role
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

Check = Callable[[Role], None]


async def locate(transaction: ReadTransaction, name: str) -> Role:
    """Returns the role of this name. Raises NotFound if there is none."""
    found = await roles.find(transaction, name)
    if found is None:
        raise not_found("role", name)
    return found


async def create(transaction: Transaction, caller: Principal, wanted: Role, words: PermissionWords) -> Role:
    """Creates a role; `words` are the existing permissions.

    Raises:
        InvalidArgument: no name, or UNKNOWN_PERMISSION.
        AlreadyExists: the name.
        PermissionDenied: ESCALATION, it holds permissions that the caller does not hold over all namespaces.
    """
    if not wanted.name:
        raise missing("role.name")
    wanted = msgspec.structs.replace(
        wanted, display_name=wanted.display_name or wanted.name, permissions=_once_each(wanted.permissions)
    )
    _check_known(wanted.permissions, words)
    # A new role has no holders, so it does not matter for how long the caller holds its permissions.
    held = [grants.as_held(wanted, "", None, None)]
    await check_caller_covers(transaction, caller, held, f'role "{wanted.name}"', whenever=True)
    if await roles.find(transaction, wanted.name) is not None:
        raise already_exists("role", wanted.name)
    return await roles.insert_role(transaction, wanted)


async def change(
    transaction: Transaction,
    caller: Principal,
    name: str,
    wanted: Role,
    paths: Sequence[str],
    check: Check,
    words: PermissionWords,
) -> Role:
    """Copies the fields named by `paths` from `wanted`; `check` may refuse the stored version (etag).

    Raises:
        NotFound: the role.
        InvalidArgument: UNKNOWN_PERMISSION, for a permission that the role does not hold already.
        FailedPrecondition: SYSTEM_ROLE, or LAST_ADMINISTRATOR if nobody would hold every permission any more.
        PermissionDenied: ESCALATION, it holds or would hold permissions that the caller does not hold.
    """
    if "permissions" in paths:
        await grants.lock_administrators(transaction)
    stored = await _locked(transaction, name, check)
    changed = msgspec.structs.replace(stored, permissions=_once_each(wanted.permissions))
    await _check_covers(transaction, caller, stored)
    values: dict[str, Any] = {}
    if "display_name" in paths:
        values["display_name"] = wanted.display_name or stored.name
    if "description" in paths:
        values["description"] = wanted.description
    if "permissions" in paths and changed.permissions != stored.permissions:
        # The stored permissions may come from another release, and must not prevent other changes.
        _check_known([each for each in changed.permissions if each not in stored.permissions], words)
        await _check_covers(transaction, caller, changed)
        await _check_administrators_stay(transaction, stored, changed)
        await grants.notify_changed(transaction)
        values["permissions"] = list(changed.permissions)
    values = {
        key: value for key, value in values.items() if key == "permissions" or value != getattr(stored, key)
    }
    return await roles.update_role(transaction, stored, values) if values else stored


async def delete(transaction: Transaction, name: str, check: Check, ruled: Mapping[str, str]) -> Role:
    """Deletes a role that nobody holds.

    `ruled` maps the roles in issuers' rules to the name of one such issuer.

    Raises:
        NotFound: the role.
        FailedPrecondition: SYSTEM_ROLE, ROLE_IN_USE with the count, or ROLE_IN_RULES: no server would start without it.
    """
    stored = await _locked(transaction, name, check)
    if name in ruled:
        raise FailedPrecondition(
            f'role "{name}" is given by a rule of the issuer "{ruled[name]}": remove that rule first',
            reason="ROLE_IN_RULES",
            metadata={"issuer": ruled[name]},
        )
    holders = await roles.count_holders(transaction, stored.id)
    if holders:
        raise FailedPrecondition(
            f'role "{name}" is granted {holders} {"time" if holders == 1 else "times"}: revoke every grant first',
            reason="ROLE_IN_USE",
            metadata={"grants": str(holders)},
        )
    await roles.delete_role(transaction, stored.id)
    return stored


async def list_page(transaction: ReadTransaction, page: PageRequest) -> tuple[Sequence[Role], NextPage]:
    """Returns one page of roles, and where the next page begins."""
    return await roles.list_roles(transaction, page)


async def _locked(transaction: Transaction, name: str, check: Check) -> Role:
    found = await roles.find(transaction, name, lock=True)
    if found is None:
        raise not_found("role", name)
    if found.is_system:
        raise FailedPrecondition(
            f'role "{name}" is shipped with the product and cannot be changed or deleted: create another role',
            reason="SYSTEM_ROLE",
        )
    check(found)
    return found


async def _check_covers(transaction: Transaction, caller: Principal, role: Role) -> None:
    held = [grants.as_held(role, "", None, None)]
    await check_caller_covers(transaction, caller, held, f'role "{role.name}"')


async def _check_administrators_stay(transaction: Transaction, stored: Role, changed: Role) -> None:
    if "*" not in stored.permissions or "*" in changed.permissions:
        return
    administrators = await grants.administrators(transaction)
    if administrators and all(grant.role_id == stored.id for grant in administrators):
        raise FailedPrecondition(
            f'only role "{stored.name}" gives every permission to a user: grant "admin" to a user first',
            reason="LAST_ADMINISTRATOR",
        )


def _check_known(permissions: Iterable[str], words: PermissionWords) -> None:
    for permission in permissions:
        words.check_form(permission, "role.permissions")


def _once_each(permissions: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(permissions))
