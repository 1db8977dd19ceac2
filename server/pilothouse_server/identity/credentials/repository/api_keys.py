"""All SQL about API keys: one row for each, found by the hash of the key's text."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)

from pilothouse_server.authorization.access import Credential, KeyLimits, KeyNamespace, Principal, within
from pilothouse_server.errors import already_exists
from pilothouse_server.identity.access.repository.grants import FOREIGN_NAMESPACES, held, held_grants
from pilothouse_server.identity.model import ApiKey, UserId
from pilothouse_server.identity.tables import API_KEYS, USERS
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
from pilothouse_server.store.references import NAMESPACES
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

register_constraint("uq_api_keys_user_name", lambda: already_exists("api key", "of this name"))

_MAKERS = USERS.alias("makers")
_ACCOUNT_NAMESPACES = NAMESPACES.alias("account_namespaces")
# The ids and names of the key's namespaces that the caller may see, in the order of names.
_SEEN_NAMESPACES: ColumnElement[Any] = literal_column(
    "(SELECT jsonb_agg(jsonb_build_array(seen.id, seen.name) ORDER BY seen.name) FROM public.namespaces seen"
    " WHERE seen.id = ANY (api_keys.namespace_ids) AND seen.deleted_at IS NULL)"
).label("seen_namespaces")
_FILTERS: Final = {
    **filter_fields(API_KEYS, "name prefix read_only create_time expire_time"),
    "api_key_id": FilterField(API_KEYS.c.uid, FilterKind.UUID),
    "username": FilterField(USERS.c.username),
    "last_use_time": FilterField(API_KEYS.c.last_used_at, FilterKind.TIMESTAMP),
    "last_use_address": FilterField(API_KEYS.c.last_used_ip),
    "rotate_time": FilterField(API_KEYS.c.rotated_at, FilterKind.TIMESTAMP),
    "created_by": FilterField(_MAKERS.c.username),
}
_ORDERS: Final = {
    "name": OrderField(API_KEYS.c.name),
    "create_time": OrderField(API_KEYS.c.created_at),
    "expire_time": OrderField(API_KEYS.c.expires_at),
}
_PRINCIPAL = (
    held()
    .add_columns(
        API_KEYS.c.uid,
        API_KEYS.c.name.label("key_name"),
        API_KEYS.c.permissions.label("key_permissions"),
        API_KEYS.c.namespace_ids,
        API_KEYS.c.read_only,
        API_KEYS.c.allowed_networks,
        API_KEYS.c.expires_at.label("access_expires_at"),
        API_KEYS.c.last_used_at,
        _SEEN_NAMESPACES,
        func.now().label("now"),
        FOREIGN_NAMESPACES,
    )
    .join(API_KEYS, API_KEYS.c.user_id == USERS.c.id)
    .where(
        API_KEYS.c.key_hash == bindparam("token_hash"),
        API_KEYS.c.revoked_at.is_(None),
        API_KEYS.c.expires_at > func.now(),
        USERS.c.status == "active",
    )
)
# Updates only keys whose last recorded use is at least `every` ago. A locked key is skipped: another server is changing
# it, perhaps for the same reason.
_TOUCH = text("""
WITH seen AS (
    SELECT k.id, r.address FROM unnest(CAST(:hashes AS bytea[]), CAST(:addresses AS text[])) AS r (key_hash, address)
    JOIN api_keys AS k ON k.key_hash = r.key_hash
    WHERE k.last_used_at IS NULL OR k.last_used_at < now() - CAST(:every AS interval)
    FOR NO KEY UPDATE OF k SKIP LOCKED)
UPDATE api_keys AS used SET last_used_at = now(), last_used_ip = nullif(seen.address, '')
FROM seen WHERE used.id = seen.id
""")


def _living() -> ColumnElement[bool]:
    return and_(API_KEYS.c.revoked_at.is_(None), API_KEYS.c.expires_at > func.now())


def _keys() -> Select[Any]:
    return select(
        API_KEYS,
        USERS.c.username,
        USERS.c.kind,
        _ACCOUNT_NAMESPACES.c.name.label("account_namespace"),
        _MAKERS.c.username.label("maker"),
        _SEEN_NAMESPACES,
    ).select_from(
        API_KEYS.join(USERS, and_(USERS.c.id == API_KEYS.c.user_id, USERS.c.deleted_at.is_(None)))
        .outerjoin(_ACCOUNT_NAMESPACES, _ACCOUNT_NAMESPACES.c.id == API_KEYS.c.account_namespace_id)
        .outerjoin(_MAKERS, _MAKERS.c.id == API_KEYS.c.created_by)
    )


async def insert_key(transaction: Transaction, values: Mapping[str, Any]) -> ApiKey:
    """Adds a key and returns it with all fields."""
    statement = (
        insert(API_KEYS).values(**values, created_by=transaction.actor.user_id).returning(API_KEYS.c.uid)
    )
    uid = (await transaction.connection.execute(statement)).scalar_one()
    found = await find(transaction, uid)
    assert found is not None, "a row that was just written can be read back"
    return found


async def find(transaction: ReadTransaction, uid: UUID) -> ApiKey | None:
    """Returns the valid key with this id; None if there is none that the caller may see."""
    query = _keys().where(API_KEYS.c.uid == uid, _living())
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _key(row)


async def count(transaction: ReadTransaction, user_id: UserId) -> int:
    """Returns the number of a user's valid keys."""
    query = select(func.count()).select_from(API_KEYS).where(API_KEYS.c.user_id == user_id, _living())
    found: int = (await transaction.connection.execute(query)).scalar_one()
    return found


async def name_is_taken(transaction: ReadTransaction, user_id: UserId, name: str) -> bool:
    """Returns whether a valid key of the user that was not rotated has this name."""
    query = select(API_KEYS.c.id).where(
        API_KEYS.c.user_id == user_id, API_KEYS.c.name == name, API_KEYS.c.rotated_at.is_(None), _living()
    )
    return (await transaction.connection.execute(query)).first() is not None


async def end_expired(transaction: Transaction, user_id: UserId) -> None:
    """Marks a user's expired keys as revoked, so that their names can be used again."""
    statement = (
        update(API_KEYS)
        .where(
            API_KEYS.c.user_id == user_id,
            API_KEYS.c.revoked_at.is_(None),
            API_KEYS.c.expires_at <= func.now(),
        )
        .values(revoked_at=API_KEYS.c.expires_at)
    )
    await transaction.connection.execute(statement)


async def rotated(transaction: Transaction, key_id: int, ends: datetime) -> bool:
    """Records that a valid key is replaced and expires at `ends`; returns False if it was already replaced."""
    statement = (
        update(API_KEYS)
        .where(API_KEYS.c.id == key_id, API_KEYS.c.rotated_at.is_(None), _living())
        .values(rotated_at=func.now(), expires_at=func.least(API_KEYS.c.expires_at, ends))
        .returning(API_KEYS.c.id)
    )
    return (await transaction.connection.execute(statement)).one_or_none() is not None


async def revoke(transaction: Transaction, key_id: int) -> bool:
    """Revokes a key; returns whether it was valid."""
    statement = (
        update(API_KEYS)
        .where(API_KEYS.c.id == key_id, _living())
        .values(revoked_at=func.now())
        .returning(API_KEYS.c.id)
    )
    return (await transaction.connection.execute(statement)).one_or_none() is not None


async def revoke_of_user(transaction: Transaction, user_id: UserId) -> None:
    """Revokes every key of a user."""
    statement = (
        update(API_KEYS)
        .where(API_KEYS.c.user_id == user_id, API_KEYS.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    await transaction.connection.execute(statement)


async def revoke_of_namespace(transaction: Transaction, namespace_id: int) -> None:
    """Revokes every key of the service accounts of a namespace."""
    statement = (
        update(API_KEYS)
        .where(API_KEYS.c.account_namespace_id == namespace_id, API_KEYS.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    await transaction.connection.execute(statement)


async def list_keys(
    transaction: ReadTransaction, user_id: UserId | None, page: PageRequest
) -> tuple[Sequence[ApiKey], NextPage]:
    """Returns one page of a user's valid keys, and where the next page begins.

    `user_id` None: the keys of all users that the caller may see.
    """
    query = _keys().where(_living(), compile_filter(page.filter, _FILTERS))
    if user_id is not None:
        query = query.where(API_KEYS.c.user_id == user_id)
    order = parse_order_by(page.order_by, _ORDERS, default="create_time", unique=API_KEYS.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_key(row) for row in rows], next_page


async def load_principal(transaction: ReadTransaction, key_hash: bytes) -> tuple[Principal, Row] | None:
    """Returns the caller that a key belongs to, and the key's row with its read time (`now`).

    The caller's grants are limited to the rights that both the key and its user give. Returns None if the key is
    unknown, has expired or was revoked, or its user is not active. The function runs one query, and needs no
    transaction around it.
    """
    rows = (await transaction.connection.execute(_PRINCIPAL, {"token_hash": key_hash})).all()
    if not rows:
        return None
    first = rows[0]
    owned = held_grants(rows)
    limits = KeyLimits(
        permissions=None if first.key_permissions is None else frozenset(first.key_permissions),
        namespaces=None if first.namespace_ids is None else _kept_to(first),
        read_only=first.read_only,
        owner_grants=owned,
    )
    credential = Credential(
        "api_key",
        str(first.uid),
        first.key_name,
        limits=limits,
        networks=tuple(ipaddress.ip_network(each) for each in first.allowed_networks),
    )
    principal = Principal(
        first.user_id,
        first.username,
        within(owned, limits),
        credential=credential,
        foreign_namespaces=frozenset(first.foreign_namespaces or ()),
    )
    return principal, first


async def touch(transaction: Transaction, used: Mapping[bytes, str], every: timedelta) -> None:
    """Records the use of keys, each with an address, at most once per `every`."""
    arguments = {"hashes": list(used), "addresses": [each[:45] for each in used.values()], "every": every}
    await transaction.connection.execute(_TOUCH, arguments)


def _kept_to(row: Row) -> tuple[KeyNamespace, ...]:
    return tuple(KeyNamespace(number, name) for number, name in row.seen_namespaces or ())


def _key(row: Row) -> ApiKey:
    kept_to = _kept_to(row)
    return ApiKey(
        id=row.id,
        uid=str(row.uid),
        user_id=UserId(row.user_id),
        name=row.name,
        prefix=row.prefix,
        username=row.username,
        permissions=tuple(row.permissions or ()),
        namespaces=tuple(each.name for each in kept_to),
        kept_to=kept_to,
        namespace_ids=None if row.namespace_ids is None else tuple(row.namespace_ids),
        read_only=row.read_only,
        allowed_networks=tuple(row.allowed_networks),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        last_used_ip=row.last_used_ip or "",
        rotated_at=row.rotated_at,
        created_by=row.maker or "",
        of_account=row.kind == "service_account",
        account_namespace=row.account_namespace or "",
        account_namespace_id=row.account_namespace_id,
    )
