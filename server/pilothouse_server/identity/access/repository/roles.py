"""All SQL about roles. Every caller may read them; they belong to no namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from pilothouse_server.errors import already_exists
from pilothouse_server.identity.access.shipped_roles import ShippedRole, excluded_from
from pilothouse_server.identity.model import Role, RoleId
from pilothouse_server.identity.tables import ROLES, USER_ROLES
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import compile_filter, filter_fields
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

register_constraint("uq_roles_name", lambda: already_exists("role", "of this name"))

_FILTERS = filter_fields(ROLES, "name display_name description is_system uid create_time update_time")
_ORDERS = {"name": OrderField(ROLES.c.name), "create_time": OrderField(ROLES.c.created_at)}


async def find(transaction: ReadTransaction, name: str, *, lock: bool = False) -> Role | None:
    """Returns the role of this name; `lock` locks its row, so that it cannot be granted concurrently."""
    query = select(ROLES).where(ROLES.c.name == name)
    if lock:
        query = query.with_for_update()
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else role_of(row)


async def insert_role(transaction: Transaction, wanted: Role) -> Role:
    """Adds a role and returns it with all fields."""
    statement = (
        insert(ROLES)
        .values(
            name=wanted.name,
            display_name=wanted.display_name,
            description=wanted.description,
            permissions=list(wanted.permissions),
            created_by=transaction.actor.user_id,
            updated_by=transaction.actor.user_id,
        )
        .returning(ROLES)
    )
    return role_of((await transaction.connection.execute(statement)).one())


async def update_role(transaction: Transaction, role: Role, values: Mapping[str, Any]) -> Role:
    """Changes a role whose row the transaction has locked, increments its version, and returns it with all fields."""
    statement = (
        update(ROLES)
        .where(ROLES.c.id == role.id)
        .values(
            **values,
            resource_version=ROLES.c.resource_version + 1,
            updated_at=func.now(),
            updated_by=transaction.actor.user_id,
        )
        .returning(ROLES)
    )
    return role_of((await transaction.connection.execute(statement)).one())


async def delete_role(transaction: Transaction, role_id: RoleId) -> None:
    """Deletes a role, and with it the expired grants of the role."""
    await transaction.connection.execute(delete(ROLES).where(ROLES.c.id == role_id))


async def count_holders(transaction: ReadTransaction, role_id: RoleId) -> int:
    """Returns the number of valid grants of the role."""
    query = select(func.count()).where(
        USER_ROLES.c.role_id == role_id,
        or_(USER_ROLES.c.expires_at.is_(None), USER_ROLES.c.expires_at > func.now()),
    )
    return int((await transaction.connection.execute(query)).scalar_one())


async def list_roles(transaction: ReadTransaction, page: PageRequest) -> tuple[Sequence[Role], NextPage]:
    """Returns one page of roles, and where the next page begins."""
    query = select(ROLES).where(compile_filter(page.filter, _FILTERS))
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=ROLES.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [role_of(row) for row in rows], next_page


async def put_shipped(transaction: Transaction, shipped: ShippedRole) -> bool:
    """Creates or updates a shipped role; returns whether anything changed."""
    values = {
        "display_name": shipped.display_name,
        "description": shipped.description,
        "permissions": list(shipped.permissions),
        "is_system": True,
    }
    statement = upsert(ROLES).values(name=shipped.name, **values)
    renewed = [ROLES.c[name].is_distinct_from(statement.excluded[name]) for name in values]
    merged = statement.on_conflict_do_update(
        index_elements=[ROLES.c.name],
        set_={
            **{name: statement.excluded[name] for name in values},
            "resource_version": ROLES.c.resource_version + 1,
            "updated_at": func.now(),
        },
        where=or_(*renewed),
    ).returning(ROLES.c.id)
    return (await transaction.connection.execute(merged)).one_or_none() is not None


def role_of(row: Row) -> Role:
    """Returns the role in a row of the table."""
    return Role(
        id=RoleId(row.id),
        uid=str(row.uid),
        name=row.name,
        display_name=row.display_name,
        description=row.description or "",
        permissions=tuple(row.permissions),
        excluded_permissions=tuple(sorted(excluded_from(row.name, is_system=row.is_system))),
        is_system=row.is_system,
        resource_version=row.resource_version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
