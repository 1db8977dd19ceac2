"""The rules of users: unique names, passwords, and that nobody may change a user with greater permissions.

A caller who can change a user's password, address or status can finally act as that user. So the caller of these
methods must hold every permission that the user holds, in the same namespaces and for as long. The user's current
status does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from pilothouse_server.authorization.access import Principal
from pilothouse_server.errors import Aborted, FailedPrecondition, Unauthenticated, invalid, missing, not_found
from pilothouse_server.identity.access.operations.escalation_guard import (
    check_caller_covers,
    last_administrator,
)
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.repository import user_secrets, users
from pilothouse_server.identity.model import User, UserId
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.actors import is_reserved_username
from pilothouse_server.values.names import normalise_email

Check = Callable[[User], None]


class AccountCredentials(Protocol):
    """Ends a user's sessions and API keys; `SessionsAndKeys` of `credentials` implements it."""

    async def end_sessions(
        self, transaction: Transaction, user_id: UserId, *, keep: UUID | None = None
    ) -> None:
        """Ends all sessions of a user except `keep`."""
        ...

    async def end_api_keys(self, transaction: Transaction, user_id: UserId) -> None:
        """Ends all API keys of a user."""
        ...

    async def count_api_keys(self, transaction: ReadTransaction, user_id: UserId) -> int:
        """Returns how many API keys of a user are valid."""
        ...


@dataclass(frozen=True, slots=True)
class PasswordReset:
    """The result of a reset of a user's password.

    `expires_at` is when the one-time code expires, None without a code; `valid_keys` is the number of the user's API
    keys that remain valid.
    """

    user: User
    expires_at: datetime | None
    valid_keys: int


async def locate(transaction: ReadTransaction, username: str) -> User:
    """Returns the existing user of this name, in upper or lower case.

    Raises NotFound if there is none, or if the caller may not see the user.
    """
    found = await users.find(transaction, username)
    if found is None:
        raise not_found("user", username)
    return found


find_person = users.find_person


async def own(transaction: ReadTransaction, caller: Principal) -> User:
    """Returns the caller's own account.

    Raises:
        Unauthenticated: the account was just deleted.
    """
    found = await users.get(transaction, caller.user_id)
    if found is None:
        raise Unauthenticated("this account was deleted", reason="INVALID_TOKEN")
    return found


def check_new_user(wanted: User) -> None:
    """Raises InvalidArgument if a user has no name, a reserved name (RESERVED_NAME), or no e-mail address."""
    if not wanted.username:
        raise missing("user.username")
    if is_reserved_username(wanted.username):
        raise invalid(
            "user.username",
            "must not be a name that the server uses for itself in records: choose another one",
            reason="RESERVED_NAME",
        )
    if not wanted.email:
        raise missing("user.email")


async def create(transaction: Transaction, wanted: User, password_hash: str) -> User:
    """Creates a user that `check_new_user` has accepted.

    The user may log in, but has no permissions yet.

    Raises:
        AlreadyExists: the name or the e-mail address.
    """
    if await users.find(transaction, wanted.username) is not None:
        raise users.username_taken()
    if await users.find_by_email(transaction, wanted.email) is not None:
        raise users.email_taken()
    return await users.insert_user(transaction, wanted, password_hash)


async def change(
    transaction: Transaction,
    caller: Principal,
    username: str,
    wanted: User,
    paths: Sequence[str],
    check: Check,
    credentials: AccountCredentials,
) -> User:
    """Copies the fields named by `paths` from `wanted`; `check` may refuse the stored version (etag).

    Raises:
        NotFound: the user.
        PermissionDenied: ESCALATION, the user holds permissions that the caller does not hold.
        FailedPrecondition: LAST_ADMINISTRATOR, the last administrator would no longer be able to log in.
        AlreadyExists: the e-mail address.
    """
    values: dict[str, Any] = {}
    if "status" in paths:
        await grants.lock_administrators(transaction)
    stored = await _locked(transaction, username)
    check(stored)
    await check_untouched(transaction, caller, stored)
    for path in paths:
        value = getattr(wanted, path)
        if value != getattr(stored, path):
            values[path] = value if path in ("email", "status") else value or None
    if "email" in values:
        values["email_normalized"] = await _free_email(transaction, stored, wanted.email)
    if not values:
        return stored
    if "status" in values:
        if wanted.status != "active":
            await _check_not_last_administrator(transaction, stored)
            await credentials.end_sessions(transaction, stored.id)
        await grants.notify_changed(transaction)
    return await users.update_user(transaction, stored, values)


async def delete(
    transaction: Transaction,
    caller: Principal,
    username: str,
    check: Check,
    credentials: AccountCredentials,
) -> User:
    """Deletes a user with all sessions, keys and grants.

    The name is free again; the row stays for the audit log.

    Raises:
        NotFound: the user.
        PermissionDenied: ESCALATION, the user holds permissions that the caller does not hold.
        FailedPrecondition: LAST_ADMINISTRATOR.
    """
    await grants.lock_administrators(transaction)
    stored = await _locked(transaction, username)
    check(stored)
    await check_untouched(transaction, caller, stored)
    await _check_not_last_administrator(transaction, stored)
    # Once their grants are deleted, users who delete their own account can see only their own rows. That suffices for
    # the last step, which changes the user's row.
    await credentials.end_sessions(transaction, stored.id)
    await credentials.end_api_keys(transaction, stored.id)
    await user_secrets.remove_of_user(transaction, stored.id)
    await grants.delete_of_user(transaction, stored.id)
    await users.end_user(transaction, stored.id)
    await grants.notify_changed(transaction)
    return stored


def check_reset_request(new_password: str, *, one_time_code: bool) -> None:
    """Raises InvalidArgument unless either a password is given or a one-time code is requested."""
    if not new_password and not one_time_code:
        raise missing("new_password")
    if new_password and one_time_code:
        raise invalid("new_password", "must be empty if one_time_code is set", reason="TWO_PASSWORDS")


async def check_reset(transaction: ReadTransaction, caller: Principal, username: str) -> None:
    """Checks whether the caller may reset the user's password; call it before the password is hashed.

    Raises:
        NotFound: the user.
        PermissionDenied: ESCALATION, the user holds permissions that the caller does not hold.
        FailedPrecondition: OWN_PASSWORD, users change their own password by ChangePassword, which asks for it.
    """
    target = await locate(transaction, username)
    if target.id == caller.user_id:
        raise FailedPrecondition(
            "this is your own account: use ChangePassword, which asks for the current password",
            reason="OWN_PASSWORD",
        )
    await check_untouched(transaction, caller, target)


async def reset_password(
    transaction: Transaction,
    caller: Principal,
    username: str,
    password_hash: str,
    credentials: AccountCredentials,
    good_for: timedelta | None = None,
    *,
    revoke_keys: bool = False,
) -> PasswordReset:
    """Sets another user's password after `check_reset`, and ends the user's sessions.

    `good_for` makes it a one-time code, with which the user sets a new password; `revoke_keys` also revokes the user's
    API keys.

    Raises:
        NotFound: the user.
        PermissionDenied: ESCALATION, the user holds permissions that the caller does not hold.
    """
    stored = await _locked(transaction, username)
    # Check again under the row's lock: the user may have gained permissions since `check_reset`.
    await check_untouched(transaction, caller, stored)
    expires_at = await users.set_password(transaction, stored.id, password_hash, good_for=good_for)
    await credentials.end_sessions(transaction, stored.id)
    valid_keys = await _keys_left(transaction, stored.id, credentials, revoke_keys=revoke_keys)
    await grants.notify_changed(transaction)
    return PasswordReset(stored, expires_at, valid_keys)


async def _keys_left(
    transaction: Transaction, user_id: UserId, credentials: AccountCredentials, *, revoke_keys: bool
) -> int:
    """Revokes the API keys of a user if requested; returns how many remain valid."""
    if revoke_keys:
        await credentials.end_api_keys(transaction, user_id)
    return await credentials.count_api_keys(transaction, user_id)


def check_new_password(current: str, new: str) -> None:
    """Raises InvalidArgument if a new password equals the current one."""
    if new == current:
        raise invalid("new_password", "must not be the current one", reason="PASSWORD_UNCHANGED")


async def change_own_password(
    transaction: Transaction,
    caller: Principal,
    confirmed_hash: str,
    password_hash: str,
    credentials: AccountCredentials,
    *,
    revoke_keys: bool = False,
) -> int:
    """Stores the caller's new password and ends the other sessions; returns how many API keys remain valid.

    `confirmed_hash` is the hash that the current password was checked against; `revoke_keys` also revokes the caller's
    API keys.

    Raises:
        Aborted: another call changed the password in the meantime.
    """
    user_id = UserId(caller.user_id)
    await users.get(transaction, user_id, lock=True)
    if await users.own_password_hash(transaction) != confirmed_hash:
        raise Aborted("another call changed the password: retry", reason="CONCURRENT_CHANGE")
    await users.set_password(transaction, user_id, password_hash)
    await credentials.end_sessions(transaction, user_id, keep=caller.session_id)
    valid_keys = await _keys_left(transaction, user_id, credentials, revoke_keys=revoke_keys)
    await grants.notify_changed(transaction)
    return valid_keys


async def list_page(transaction: ReadTransaction, page: PageRequest) -> tuple[Sequence[User], NextPage]:
    """Returns one page of users, and where the next page begins."""
    return await users.list_users(transaction, page)


async def _locked(transaction: Transaction, username: str) -> User:
    found = await users.find(transaction, username, lock=True)
    if found is None:
        raise not_found("user", username)
    return found


async def check_untouched(transaction: ReadTransaction, caller: Principal, user: User) -> None:
    """Raises PermissionDenied (ESCALATION) if another user holds permissions that the caller does not hold."""
    if user.id == caller.user_id:
        return
    held = await grants.held_by(transaction, user.id, whatever_status=True)
    await check_caller_covers(transaction, caller, held, f'user "{user.username}"')


async def _check_not_last_administrator(transaction: Transaction, user: User) -> None:
    administrators = {grant.user_id for grant in await grants.administrators(transaction)}
    if administrators == {user.id}:
        raise last_administrator(user.username)


async def _free_email(transaction: Transaction, user: User, email: str) -> str:
    if not email:
        raise missing("user.email")
    holder = await users.find_by_email(transaction, email)
    if holder not in (None, user.id):
        raise users.email_taken()
    return normalise_email(email)
