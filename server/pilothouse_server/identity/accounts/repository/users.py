"""All SQL about users.

The app role may not read `password_hash`, because a user's row is visible to all users who share a namespace with that
user. So queries name each column. At a log-in the system role reads the hash. Callers read their own hash through
`app_password_hash()`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, insert, select, update

from pilothouse_server.errors import AlreadyExists
from pilothouse_server.identity.model import User, UserId
from pilothouse_server.identity.tables import USERS
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.names import normalise_email, normalise_username


def username_taken() -> AlreadyExists:
    """Returns the error for a user name that an existing user has, in upper or lower case."""
    return AlreadyExists(
        "the user name is taken", reason="USER_ALREADY_EXISTS", metadata={"field": "user.username"}
    )


def email_taken() -> AlreadyExists:
    """Returns the error for an e-mail address that an existing user has, in upper or lower case."""
    return AlreadyExists(
        "the e-mail address is taken", reason="EMAIL_ALREADY_EXISTS", metadata={"field": "user.email"}
    )


register_constraint("uq_users_username", username_taken)
register_constraint("uq_users_email", email_taken)

_CREATORS = USERS.alias("creators")
_STATUS = {name.upper(): name for name in ("active", "inactive", "locked")}
_FILTERS = {
    "status": FilterField(USERS.c.status, FilterKind.ENUM, _STATUS, "USER_STATUS_"),
    **filter_fields(USERS, "username email full_name avatar_url uid create_time update_time last_login_time"),
    "second_factor": FilterField(USERS.c.totp_since.is_not(None), FilterKind.BOOLEAN),
    "created_by": FilterField(_CREATORS.c.username),
}
_ORDERS = {"username": OrderField(USERS.c.username), "create_time": OrderField(USERS.c.created_at)}


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """The stored values that a log-in is checked against.

    `one_time`: the password is the one-time code of a reset, which only permits its user to set a new password.
    `expired`: the code has expired.
    """

    user: User
    password_hash: str = field(repr=False)
    password_changed_at: datetime
    one_time: bool = False
    expired: bool = False


def _users() -> Select[Any]:
    return (
        select(
            USERS.c.id,
            USERS.c.uid,
            USERS.c.username,
            USERS.c.email,
            USERS.c.full_name,
            USERS.c.avatar_url,
            USERS.c.status,
            USERS.c.last_login_at,
            USERS.c.totp_since,
            USERS.c.resource_version,
            USERS.c.created_at,
            USERS.c.updated_at,
            _CREATORS.c.username.label("creator"),
        )
        .select_from(USERS.outerjoin(_CREATORS, _CREATORS.c.id == USERS.c.created_by))
        .where(USERS.c.deleted_at.is_(None))
    )


async def of_names(transaction: ReadTransaction, names: Collection[str]) -> Sequence[str]:
    """Returns the names of the existing users whose normalised name is one of `names`."""
    query = (
        select(USERS.c.username)
        .where(USERS.c.username_normalized.in_(sorted(names)), USERS.c.deleted_at.is_(None))
        .order_by(USERS.c.id)
    )
    return [row.username for row in (await transaction.connection.execute(query)).all()]


async def find(transaction: ReadTransaction, username: str, *, lock: bool = False) -> User | None:
    """Returns the existing user of this name, in upper or lower case; None if the caller sees no such user.

    `lock` locks the row.
    """
    query = _users().where(USERS.c.username_normalized == normalise_username(username))
    if lock:
        # NO KEY UPDATE: with FOR UPDATE, the foreign key of audit records on users would make their inserts wait here
        # while they hold the lock of the stream head.
        query = query.with_for_update(key_share=True, of=USERS)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _user(row)


async def get(transaction: ReadTransaction, user_id: int, *, lock: bool = False) -> User | None:
    """Returns the existing user with this id; None if there is none.

    `lock` locks the row.
    """
    query = _users().where(USERS.c.id == user_id)
    if lock:
        # NO KEY UPDATE: see `find`.
        query = query.with_for_update(key_share=True, of=USERS)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _user(row)


async def find_person(transaction: ReadTransaction, uid: str) -> User | None:
    """Returns the existing person with this uid; None if there is none, or for a service account."""
    query = _users().where(USERS.c.uid == uid, USERS.c.kind == "person")
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _user(row)


async def find_by_email(transaction: ReadTransaction, email: str) -> UserId | None:
    """Returns the id of the existing user with this e-mail address; None if there is none."""
    query = select(USERS.c.id).where(
        USERS.c.email_normalized == normalise_email(email), USERS.c.deleted_at.is_(None)
    )
    found: UserId | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


async def insert_user(
    transaction: Transaction, wanted: User, password_hash: str, *, is_bootstrap: bool = False
) -> User:
    """Adds a user and returns it with all fields."""
    statement = (
        insert(USERS)
        .values(
            username=wanted.username,
            username_normalized=normalise_username(wanted.username),
            email=wanted.email,
            email_normalized=normalise_email(wanted.email),
            password_hash=password_hash,
            full_name=wanted.full_name or None,
            avatar_url=wanted.avatar_url or None,
            status=wanted.status,
            is_bootstrap=is_bootstrap,
            created_by=transaction.actor.user_id,
            updated_by=transaction.actor.user_id,
        )
        .returning(USERS.c.id)
    )
    user_id = (await transaction.connection.execute(statement)).scalar_one()
    return await _whole(transaction, user_id)


async def update_user(transaction: Transaction, user: User, values: Mapping[str, Any]) -> User:
    """Changes a user whose row the transaction has locked, increments its version, and returns it with all fields."""
    await _update(transaction, user.id, values)
    return await _whole(transaction, user.id)


async def end_user(transaction: Transaction, user_id: UserId) -> None:
    """Marks a user as deleted. The row stays, because the audit log refers to it."""
    await _update(transaction, user_id, {"deleted_at": func.now()})


async def set_password(
    transaction: Transaction, user_id: UserId, password_hash: str, *, good_for: timedelta | None = None
) -> datetime | None:
    """Stores the hash of a new password; `good_for` makes it a one-time code.

    Returns when that expires, else None.
    """
    expires_at = None if good_for is None else func.clock_timestamp() + good_for
    values = {
        "password_hash": password_hash,
        # The clock's time, not that of the transaction's start: a log-in may set a new password in its transaction.
        "password_changed_at": func.clock_timestamp(),
        "password_expires_at": expires_at,
    }
    await _update(transaction, user_id, values)
    if good_for is None:
        return None
    query = select(USERS.c.password_expires_at).where(USERS.c.id == user_id)
    found: datetime | None = (await transaction.connection.execute(query)).scalar_one()
    return found


async def own_password_hash(transaction: ReadTransaction) -> str | None:
    """Returns the caller's own password hash."""
    found: str | None = (await transaction.connection.execute(select(func.app_password_hash()))).scalar_one()
    return found


async def list_users(transaction: ReadTransaction, page: PageRequest) -> tuple[Sequence[User], NextPage]:
    """Returns one page of people (existing users without service accounts), and where the next page begins."""
    query = _users().where(compile_filter(page.filter, _FILTERS), USERS.c.kind == "person")
    order = parse_order_by(page.order_by, _ORDERS, default="username", unique=USERS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_user(row) for row in rows], next_page


async def credentials(transaction: ReadTransaction, username: str) -> PasswordCredentials | None:
    """Returns the values that a log-in under this name is checked against; requires the system role."""
    return await _credentials(
        transaction, USERS.c.username_normalized == normalise_username(username), lock=False
    )


async def credentials_of(
    transaction: ReadTransaction, user_id: UserId, *, lock: bool = False
) -> PasswordCredentials | None:
    """Returns the same as `credentials` for the existing user with this id; `lock` locks the row."""
    return await _credentials(transaction, USERS.c.id == user_id, lock=lock)


async def _credentials(
    transaction: ReadTransaction, whose: ColumnElement[bool], *, lock: bool
) -> PasswordCredentials | None:
    expires = USERS.c.password_expires_at
    query = (
        _users()
        .add_columns(
            USERS.c.password_hash,
            USERS.c.password_changed_at,
            expires.is_not(None).label("one_time"),
            func.coalesce(expires <= func.clock_timestamp(), False).label("expired"),
        )
        # Service accounts are excluded, so that none can ever log in by a password.
        .where(whose, USERS.c.kind == "person")
    )
    if lock:
        query = query.with_for_update(key_share=True, of=USERS)
    row = (await transaction.connection.execute(query)).one_or_none()
    if row is None:
        return None
    return PasswordCredentials(
        _user(row), row.password_hash, row.password_changed_at, row.one_time, row.expired
    )


async def logged_in(transaction: Transaction, checked: PasswordCredentials, rehashed: str | None) -> bool:
    """Records a log-in, and `rehashed`, the hash of the same password with newer parameters.

    This does not count as a change of the user. The row stays locked until the transaction ends. Returns False if the
    password, the status or the required second factor have changed since `checked` was read.
    """
    statement = (
        update(USERS)
        .where(
            USERS.c.id == checked.user.id,
            USERS.c.password_hash == checked.password_hash,
            USERS.c.status == "active",
            USERS.c.deleted_at.is_(None),
            USERS.c.totp_since.is_not(None) == checked.user.second_factor,
            USERS.c.password_expires_at.is_not(None) == checked.one_time,
        )
        .values(last_login_at=func.clock_timestamp(), password_hash=rehashed or checked.password_hash)
        .returning(USERS.c.id)
    )
    return (await transaction.connection.execute(statement)).one_or_none() is not None


async def had_bootstrap(transaction: ReadTransaction) -> bool:
    """Returns whether the bootstrap administrator was ever created, even if it was deleted since."""
    query = select(USERS.c.id).where(USERS.c.is_bootstrap).limit(1)
    return (await transaction.connection.execute(query)).one_or_none() is not None


async def _update(transaction: Transaction, user_id: UserId, values: Mapping[str, Any]) -> None:
    statement = (
        update(USERS)
        .where(USERS.c.id == user_id)
        .values(
            **values,
            resource_version=USERS.c.resource_version + 1,
            updated_at=func.now(),
            updated_by=transaction.actor.user_id,
        )
    )
    await transaction.connection.execute(statement)


async def _whole(transaction: ReadTransaction, user_id: int) -> User:
    found = await get(transaction, user_id)
    assert found is not None, "a row that was just written can be read back"
    return found


def _user(row: Row) -> User:
    return User(
        id=UserId(row.id),
        uid=str(row.uid),
        username=row.username,
        email=row.email,
        full_name=row.full_name or "",
        avatar_url=row.avatar_url or "",
        status=row.status,
        last_login_at=row.last_login_at,
        second_factor=row.totp_since is not None,
        resource_version=row.resource_version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.creator or "",
    )
