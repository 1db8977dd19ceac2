"""All SQL about service accounts: users of a separate kind, which belong to a namespace or to the platform."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Select, and_, delete, func, insert, literal, select, text, update

from pilothouse_server.errors import AlreadyExists
from pilothouse_server.identity.model import NO_PASSWORD, SERVICE_ACCOUNT_KIND, ServiceAccount, UserId
from pilothouse_server.identity.tables import USER_ROLES, USERS
from pilothouse_server.store.filtering import FilterField, compile_filter, filter_fields
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.references import NAMESPACES
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.names import normalise_username, service_account_username

_MAKERS = USERS.alias("makers")
# Each row of `users` needs an e-mail address; no mail is sent to this domain.
_ADDRESS: Final = "serviceaccount.invalid"
_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('pilothouse/service-accounts ' || :place, 0))")
_NAME = func.regexp_replace(USERS.c.username, literal("^.*:"), literal(""))
_FILTERS: Final = {
    "name": FilterField(_NAME),
    "namespace": FilterField(NAMESPACES.c.name),
    "description": FilterField(USERS.c.full_name),
    "created_by": FilterField(_MAKERS.c.username),
    **filter_fields(USERS, "username uid create_time"),
}
_ORDERS: Final = {"username": OrderField(USERS.c.username), "create_time": OrderField(USERS.c.created_at)}


def _accounts() -> Select[Any]:
    return (
        select(
            USERS.c.id,
            USERS.c.uid,
            USERS.c.username,
            USERS.c.full_name,
            USERS.c.namespace_id,
            USERS.c.created_at,
            NAMESPACES.c.name.label("namespace"),
            _MAKERS.c.username.label("maker"),
        )
        .select_from(
            USERS.outerjoin(
                NAMESPACES,
                and_(NAMESPACES.c.id == USERS.c.namespace_id, NAMESPACES.c.deleted_at.is_(None)),
            ).outerjoin(_MAKERS, _MAKERS.c.id == USERS.c.created_by)
        )
        .where(USERS.c.kind == SERVICE_ACCOUNT_KIND, USERS.c.deleted_at.is_(None))
    )


def taken(username: str) -> AlreadyExists:
    """Returns the error for the name of an existing service account."""
    return AlreadyExists(
        f'service account "{username}" exists already',
        reason="SERVICE_ACCOUNT_ALREADY_EXISTS",
        metadata={"field": "service_account.name"},
    )


async def find(transaction: ReadTransaction, username: str, *, lock: bool = False) -> ServiceAccount | None:
    """Returns the existing service account of this user name; None if the caller sees none. `lock` locks the row."""
    query = _accounts().where(USERS.c.username_normalized == normalise_username(username))
    if lock:
        # NO KEY UPDATE: see `users.find`.
        query = query.with_for_update(key_share=True, of=USERS)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _account(row)


async def insert_account(
    transaction: Transaction, namespace: str, namespace_id: int | None, name: str, description: str
) -> ServiceAccount:
    """Adds a service account and returns it with all fields."""
    username = service_account_username(namespace, name)
    address = f"{'.'.join(filter(None, (name, namespace)))}@{_ADDRESS}"
    statement = insert(USERS).values(
        username=username,
        username_normalized=normalise_username(username),
        email=address,
        email_normalized=address,
        password_hash=NO_PASSWORD,
        full_name=description or None,
        status="active",
        kind=SERVICE_ACCOUNT_KIND,
        namespace_id=namespace_id,
        created_by=transaction.actor.user_id,
        updated_by=transaction.actor.user_id,
    )
    await transaction.connection.execute(statement)
    found = await find(transaction, username)
    assert found is not None, "a row that was just written can be read back"
    return found


async def list_accounts(
    transaction: ReadTransaction,
    page: PageRequest,
    namespaces: Collection[int] | None,
) -> tuple[Sequence[ServiceAccount], NextPage]:
    """Returns one page of service accounts, and where the next page begins.

    The accounts are those of `namespaces`; None means all accounts, also those of the platform.
    """
    query = _accounts().where(compile_filter(page.filter, _FILTERS))
    if namespaces is not None:
        query = query.where(USERS.c.namespace_id.in_(namespaces))
    order = parse_order_by(page.order_by, _ORDERS, default="username", unique=USERS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_account(row) for row in rows], next_page


async def lock_scope(transaction: Transaction, namespace_id: int | None) -> bool:
    """Lets one transaction at a time create service accounts in a namespace, or of the platform.

    Also locks the namespace's row, so that the namespace cannot be deleted before the transaction ends. Returns False
    if it was already deleted.
    """
    if namespace_id is not None:
        query = (
            select(NAMESPACES.c.id)
            .where(NAMESPACES.c.id == namespace_id, NAMESPACES.c.deleted_at.is_(None))
            .with_for_update(read=True)
        )
        if (await transaction.connection.execute(query)).one_or_none() is None:
            return False
    await transaction.connection.execute(_ALONE, {"place": str(namespace_id or "")})
    return True


async def count(transaction: ReadTransaction, namespace_id: int | None) -> int:
    """Returns the number of existing service accounts of a namespace, or of the platform."""
    query = (
        select(func.count())
        .select_from(USERS)
        .where(
            USERS.c.kind == SERVICE_ACCOUNT_KIND,
            USERS.c.namespace_id.is_not_distinct_from(namespace_id),
            USERS.c.deleted_at.is_(None),
        )
    )
    found: int = (await transaction.connection.execute(query)).scalar_one()
    return found


async def end_of_namespace(transaction: Transaction, namespace_id: int) -> None:
    """Marks the service accounts of a namespace as deleted, and deletes their grants.

    The rows stay, because the audit log refers to them.
    """
    of_it = select(USERS.c.id).where(USERS.c.namespace_id == namespace_id, USERS.c.deleted_at.is_(None))
    await transaction.connection.execute(delete(USER_ROLES).where(USER_ROLES.c.user_id.in_(of_it)))
    statement = (
        update(USERS)
        .where(USERS.c.namespace_id == namespace_id, USERS.c.deleted_at.is_(None))
        .values(deleted_at=func.now(), updated_at=func.now())
    )
    await transaction.connection.execute(statement)


def _account(row: Row) -> ServiceAccount:
    return ServiceAccount(
        id=UserId(row.id),
        uid=str(row.uid),
        username=row.username,
        name=row.username.rpartition(":")[2],
        namespace=row.namespace or "",
        namespace_id=row.namespace_id,
        description=row.full_name or "",
        created_at=row.created_at,
        created_by=row.maker or "",
    )
