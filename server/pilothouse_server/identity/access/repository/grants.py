"""All SQL about grants, and about the permissions that a user's grants give."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert

from pilothouse_server.authorization.access import Grant
from pilothouse_server.errors import not_found
from pilothouse_server.identity.access.shipped_roles import excluded_from
from pilothouse_server.identity.model import Role, RoleGrant, RoleId, UserId
from pilothouse_server.identity.tables import ROLES, USER_ROLES, USERS
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

register_constraint("fk_user_roles_role", lambda: not_found("role", "of this name"))
register_constraint("fk_user_roles_user", lambda: not_found("user", "of this name"))
register_constraint("fk_user_roles_namespace", lambda: not_found("namespace", "of this name"))

# Namespaces whose Kubernetes namespace belongs to another owner, as the reconciler found. The condition must match that
# of `idx_namespaces_foreign`, so that PostgreSQL uses the index.
_FOREIGN = """deleted_at IS NULL AND (
    conditions @> '[{"type": "Applied", "status": "False", "reason": "NameTaken"}]'
    OR conditions @> '[{"type": "Applied", "status": "False", "reason": "LabelLost"}]')"""
FOREIGN_NAMESPACES: ColumnElement[list[str] | None] = literal_column(
    f"(SELECT array_agg(foreigners.name::text) FROM public.namespaces foreigners WHERE {_FOREIGN})"  # noqa: S608
).label("foreign_namespaces")
_WHY_FOREIGN = text(
    "SELECT coalesce(message, 'its Kubernetes namespace is not managed by Pilothouse') "  # noqa: S608
    f"FROM public.namespaces WHERE name = :name AND {_FOREIGN}"
)
_GIVERS = USERS.alias("givers")
_FILTERS = {
    "username": FilterField(USERS.c.username),
    "role": FilterField(ROLES.c.name),
    "namespace": FilterField(NAMESPACES.c.name),
    "create_time": FilterField(USER_ROLES.c.assigned_at, FilterKind.TIMESTAMP),
    "assigned_by": FilterField(_GIVERS.c.username),
    **filter_fields(USER_ROLES, "expire_time source"),
}
_ORDERS = {"create_time": OrderField(USER_ROLES.c.assigned_at)}
_NOTIFY = text("SELECT pg_notify('pilothouse_grants', '')")
# Any constant that no other advisory lock of the product uses.
_LOCK_ADMINISTRATORS = text("SELECT pg_advisory_xact_lock(hashtextextended('pilothouse/administrators', 0))")


@dataclass(frozen=True, slots=True)
class AdministratorGrant:
    """A grant of every permission over all namespaces, without an end, to a person who may log in."""

    user_id: UserId
    role_id: RoleId


def _lives() -> ColumnElement[bool]:
    return or_(USER_ROLES.c.expires_at.is_(None), USER_ROLES.c.expires_at > func.now())


def _grants() -> Select[Any]:
    return (
        select(
            USER_ROLES,
            USERS.c.username,
            ROLES.c.name.label("role"),
            NAMESPACES.c.name.label("namespace"),
            _GIVERS.c.username.label("giver"),
        )
        .select_from(
            USER_ROLES.join(USERS, and_(USERS.c.id == USER_ROLES.c.user_id, USERS.c.deleted_at.is_(None)))
            .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
            .outerjoin(
                NAMESPACES,
                and_(
                    NAMESPACES.c.id == USER_ROLES.c.namespace_id,
                    NAMESPACES.c.deleted_at.is_(None),
                ),
            )
            .outerjoin(_GIVERS, _GIVERS.c.id == USER_ROLES.c.assigned_by)
        )
        .where(_lives(), or_(USER_ROLES.c.namespace_id.is_(None), NAMESPACES.c.id.is_not(None)))
    )


async def find(
    transaction: ReadTransaction, user_id: UserId, role_id: RoleId, namespace_id: int | None
) -> RoleGrant | None:
    """Returns the valid grant of this role to this user; `namespace_id` None means over all namespaces."""
    query = _grants().where(
        USER_ROLES.c.user_id == user_id,
        USER_ROLES.c.role_id == role_id,
        USER_ROLES.c.namespace_id.is_not_distinct_from(namespace_id),
    )
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _role_grant(row)


async def find_named(
    transaction: ReadTransaction, username: str, role: str, namespace_id: int | None
) -> RoleGrant | None:
    """Returns the valid grant of this role to this user, by their names; otherwise like `find`."""
    query = _grants().where(
        USERS.c.username == username,
        ROLES.c.name == role,
        USER_ROLES.c.namespace_id.is_not_distinct_from(namespace_id),
    )
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _role_grant(row)


async def of_user(transaction: ReadTransaction, user_id: int) -> list[RoleGrant]:
    """Returns the valid grants of one user, oldest first."""
    query = (
        _grants().where(USER_ROLES.c.user_id == user_id).order_by(USER_ROLES.c.assigned_at, USER_ROLES.c.id)
    )
    return [_role_grant(row) for row in (await transaction.connection.execute(query)).all()]


async def put(
    transaction: Transaction,
    user_id: UserId,
    role_id: RoleId,
    namespace_id: int | None,
    expires_at: datetime | None,
) -> None:
    """Grants a role, or changes when a valid grant of it ends; a grant that has ended begins again."""
    statement = insert(USER_ROLES).values(
        user_id=user_id,
        role_id=role_id,
        namespace_id=namespace_id,
        expires_at=expires_at,
        assigned_by=transaction.actor.user_id,
        source=None,
    )
    new = statement.excluded
    # A grant that a rule gave becomes a grant of the caller, so it begins again too.
    given = and_(_lives(), USER_ROLES.c.source.is_(None))
    merged = statement.on_conflict_do_update(
        constraint="uq_user_roles",
        set_={
            "expires_at": new.expires_at,
            "assigned_at": case((given, USER_ROLES.c.assigned_at), else_=func.now()),
            "assigned_by": case((given, USER_ROLES.c.assigned_by), else_=new.assigned_by),
            "source": None,
        },
    )
    await transaction.connection.execute(merged)


async def delete_grant(transaction: Transaction, grant_id: int) -> None:
    """Deletes one grant."""
    await transaction.connection.execute(delete(USER_ROLES).where(USER_ROLES.c.id == grant_id))


async def delete_of_user(transaction: Transaction, user_id: UserId) -> None:
    """Deletes every grant of a user."""
    await transaction.connection.execute(delete(USER_ROLES).where(USER_ROLES.c.user_id == user_id))


async def delete_of_namespace(transaction: Transaction, namespace_id: int) -> None:
    """Deletes every grant in a namespace, so that a new namespace of the same name starts without them."""
    await transaction.connection.execute(delete(USER_ROLES).where(USER_ROLES.c.namespace_id == namespace_id))


async def list_grants(
    transaction: ReadTransaction, page: PageRequest, namespaces: Collection[int] | None
) -> tuple[Sequence[RoleGrant], NextPage]:
    """Returns one page of valid grants, and where the next page begins.

    The grants are those in `namespaces`; None means all grants, also those over all namespaces.
    """
    query = _grants().where(compile_filter(page.filter, _FILTERS))
    if namespaces is not None:
        query = query.where(USER_ROLES.c.namespace_id.in_(namespaces))
    order = parse_order_by(page.order_by, _ORDERS, default="create_time", unique=USER_ROLES.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_role_grant(row) for row in rows], next_page


async def held_by(
    transaction: ReadTransaction, user_id: int, *, whatever_status: bool = False
) -> tuple[Grant, ...]:
    """Returns the grants that a user holds now, with their permissions.

    Returns nothing if the user may not log in. `whatever_status` also returns the grants of such a user, who would hold
    them after reactivation.
    """
    query = held().where(USERS.c.id == user_id)
    if not whatever_status:
        query = query.where(USERS.c.status == "active")
    rows = (await transaction.connection.execute(query)).all()
    return held_grants(rows)


def held() -> Select[Any]:
    """Selects existing users of any status: one row for each valid grant, or one row without a grant."""
    return (
        select(
            USERS.c.id.label("user_id"),
            USERS.c.username,
            USER_ROLES.c.namespace_id,
            USER_ROLES.c.expires_at,
            ROLES.c.name.label("role"),
            ROLES.c.is_system,
            ROLES.c.permissions,
            NAMESPACES.c.name.label("namespace"),
            USER_ROLES.c.id.label("grant_id"),
        )
        .select_from(
            USERS.outerjoin(USER_ROLES, and_(USER_ROLES.c.user_id == USERS.c.id, _lives()))
            .outerjoin(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
            .outerjoin(
                NAMESPACES,
                and_(
                    NAMESPACES.c.id == USER_ROLES.c.namespace_id,
                    NAMESPACES.c.deleted_at.is_(None),
                ),
            )
        )
        .where(USERS.c.deleted_at.is_(None))
    )


def held_grants(rows: Iterable[Row]) -> tuple[Grant, ...]:
    """Returns the grants in the rows of one user that `held` selects.

    Grants of roles without permissions are left out, because they give no access to their namespace. The row-level
    security policies do the same.
    """
    return tuple(
        Grant(
            role=row.role,
            namespace=row.namespace,
            namespace_id=row.namespace_id,
            permissions=frozenset(row.permissions),
            excluded=excluded_from(row.role, is_system=row.is_system),
            expires_at=row.expires_at,
            id=row.grant_id,
        )
        for row in rows
        if row.permissions and (row.namespace_id is None or row.namespace is not None)
    )


def as_held(role: Role, namespace: str, namespace_id: int | None, expires_at: datetime | None) -> Grant:
    """Returns a grant of `role` as its holder would hold it."""
    return Grant(
        role=role.name,
        namespace=namespace or None,
        namespace_id=namespace_id,
        permissions=frozenset(role.permissions),
        excluded=frozenset(role.excluded_permissions),
        expires_at=expires_at,
    )


async def lock_administrators(transaction: Transaction) -> None:
    """Locks the set of administrators until the transaction ends.

    Otherwise two concurrent transactions could each remove an administrator and leave none.
    """
    await transaction.connection.execute(_LOCK_ADMINISTRATORS)


async def administrators(transaction: ReadTransaction) -> list[AdministratorGrant]:
    """Returns every grant that makes a permanent administrator.

    A caller without a grant over all namespaces sees none of these grants.
    """
    query = (
        select(USER_ROLES.c.user_id, ROLES.c.id.label("role_id"), ROLES.c.name, ROLES.c.is_system)
        .select_from(
            USER_ROLES.join(USERS, USERS.c.id == USER_ROLES.c.user_id).join(
                ROLES, ROLES.c.id == USER_ROLES.c.role_id
            )
        )
        .where(
            USER_ROLES.c.namespace_id.is_(None),
            USER_ROLES.c.expires_at.is_(None),
            # An issuer may withdraw the grants by its rules at any time, and no administrator would be left.
            USER_ROLES.c.source.is_(None),
            USERS.c.status == "active",
            USERS.c.deleted_at.is_(None),
            # A service account cannot log in, so the platform needs another administrator.
            USERS.c.kind == "person",
            ROLES.c.permissions.contains(["*"]),
        )
    )
    rows = (await transaction.connection.execute(query)).all()
    return [
        AdministratorGrant(UserId(row.user_id), RoleId(row.role_id))
        for row in rows
        if not excluded_from(row.name, is_system=row.is_system)
    ]


_NAMESPACE_ID = select(NAMESPACES.c.id).where(
    NAMESPACES.c.name == bindparam("name"), NAMESPACES.c.deleted_at.is_(None)
)


async def find_namespace(transaction: ReadTransaction, name: str) -> int | None:
    """Returns the id of an existing namespace that the transaction can see; None if there is none."""
    found: int | None = (
        await transaction.connection.execute(_NAMESPACE_ID, {"name": name})
    ).scalar_one_or_none()
    return found


async def why_foreign(transaction: ReadTransaction, name: str) -> str:
    """Returns why the Kubernetes namespace of this namespace belongs to another owner; '' if it does not."""
    found: str | None = (
        await transaction.connection.execute(_WHY_FOREIGN, {"name": name})
    ).scalar_one_or_none()
    return found or ""


async def notify_changed(transaction: Transaction) -> None:
    """Notifies every server, when the transaction commits, that cached callers may be out of date."""
    await transaction.connection.execute(_NOTIFY)


def _role_grant(row: Row) -> RoleGrant:
    return RoleGrant(
        id=row.id,
        user_id=UserId(row.user_id),
        username=row.username,
        role=row.role,
        namespace=row.namespace or "",
        namespace_id=row.namespace_id,
        expires_at=row.expires_at,
        assigned_at=row.assigned_at,
        assigned_by=row.giver or "",
        source=row.source or "",
    )
