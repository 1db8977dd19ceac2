"""All SQL of explanations: ended grants, users who could give a permission, users who hold it.

Everything is read as the caller, so row-level security decides which grants are visible: the caller's own, those in
namespaces that the caller has a grant in, and all grants if the caller has a grant over all namespaces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, and_, cast, false, func, not_, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY, array

from pilothouse_server.authorization.access import Grant, permission_matches
from pilothouse_server.authorization.denials import Question
from pilothouse_server.identity.access.repository.grants import held, held_grants
from pilothouse_server.identity.access.repository.roles import role_of
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from pilothouse_server.identity.model import SERVICE_ACCOUNT_KIND, PrincipalGrant, Role
from pilothouse_server.identity.tables import API_KEYS, ROLES, USER_ROLES, USERS
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
from pilothouse_server.store.unit_of_work import ReadTransaction

GIVING = "grant.create"
# The maximum numbers of ended grants, possible givers, and sufficient roles that are read.
_MOST_ENDED = 20
_MOST_GIVERS = 20
_MOST_ROLES = 100
# The maximum number of keys of one user that are read.
_MOST_KEYS = 20

_IS_ACCOUNT = USERS.c.kind == SERVICE_ACCOUNT_KIND
# The namespaces that service accounts belong to.
_HOMES = NAMESPACES.alias("homes")
_FILTERS = {
    "username": FilterField(USERS.c.username),
    "role": FilterField(ROLES.c.name),
    "namespace": FilterField(NAMESPACES.c.name),
    "create_time": FilterField(USER_ROLES.c.assigned_at, FilterKind.TIMESTAMP),
    **filter_fields(USER_ROLES, "expire_time"),
    "service_account": FilterField(_IS_ACCOUNT, FilterKind.BOOLEAN),
}
_ORDERS = {
    "username": OrderField(USERS.c.username),
    "create_time": OrderField(USER_ROLES.c.assigned_at),
}


def _names(question: Question) -> ColumnElement[bool]:
    """Returns the condition for roles that name the permission and do not exclude it."""
    named = ROLES.c.permissions.has_any(cast(array(question.forms), ARRAY(String)))
    leaving = [
        role.name
        for role in SHIPPED_ROLES.values()
        if any(permission_matches(excluded, question.permission) for excluded in role.excluded)
    ]
    return and_(named, not_(and_(ROLES.c.is_system, ROLES.c.name.in_(leaving)))) if leaving else named


def _lives() -> ColumnElement[bool]:
    return or_(USER_ROLES.c.expires_at.is_(None), USER_ROLES.c.expires_at > func.now())


async def ended(transaction: ReadTransaction, user_id: int, question: Question) -> tuple[Grant, ...]:
    """Returns the user's ended grants of roles that hold the permission; the grant that ended last comes first."""
    query = (
        select(
            USER_ROLES.c.namespace_id,
            USER_ROLES.c.expires_at,
            USER_ROLES.c.id.label("grant_id"),
            ROLES.c.name.label("role"),
            ROLES.c.is_system,
            ROLES.c.permissions,
            NAMESPACES.c.name.label("namespace"),
        )
        .select_from(
            USER_ROLES.join(ROLES, ROLES.c.id == USER_ROLES.c.role_id).outerjoin(
                NAMESPACES,
                and_(NAMESPACES.c.id == USER_ROLES.c.namespace_id, NAMESPACES.c.deleted_at.is_(None)),
            )
        )
        .where(USER_ROLES.c.user_id == user_id, USER_ROLES.c.expires_at <= func.now(), _names(question))
        .order_by(USER_ROLES.c.expires_at.desc(), USER_ROLES.c.id)
        .limit(_MOST_ENDED)
    )
    return held_grants((await transaction.connection.execute(query)).all())


async def possible_givers(
    transaction: ReadTransaction, namespace_id: int | None, *, over_all: bool
) -> dict[str, tuple[Grant, ...]]:
    """Returns the grants of users who may give roles in a namespace, by user name.

    The grants are those in the namespace (none if `namespace_id` is None); with `over_all`, also those over all
    namespaces.
    """
    where = or_(
        USER_ROLES.c.namespace_id == namespace_id if namespace_id is not None else false(),
        USER_ROLES.c.namespace_id.is_(None) if over_all else false(),
    )
    giving = Question(GIVING)
    users = (
        select(USERS.c.id)
        .select_from(
            USERS.join(USER_ROLES, and_(USER_ROLES.c.user_id == USERS.c.id, _lives())).join(
                ROLES, ROLES.c.id == USER_ROLES.c.role_id
            )
        )
        # Service accounts are left out: a program cannot be asked for a grant.
        .where(
            USERS.c.deleted_at.is_(None), USERS.c.status == "active", not_(_IS_ACCOUNT), where, _names(giving)
        )
        .group_by(USERS.c.id, USERS.c.username)
        # Users who can give roles only in that namespace come before users who can give them everywhere.
        .order_by(func.min(USER_ROLES.c.namespace_id).is_(None), USERS.c.username)
        .limit(_MOST_GIVERS)
        .subquery("possible")
    )
    query = held().join(users, users.c.id == USERS.c.id).where(where)
    found: dict[str, list[Row]] = {}
    for row in (await transaction.connection.execute(query)).all():
        found.setdefault(row.username, []).append(row)
    return {username: held_grants(rows) for username, rows in found.items()}


async def roles_giving(transaction: ReadTransaction, question: Question) -> list[Role]:
    """Returns the roles that hold the permission."""
    query = select(ROLES).where(_names(question)).order_by(ROLES.c.name).limit(_MOST_ROLES)
    return [role_of(row) for row in (await transaction.connection.execute(query)).all()]


async def list_holders(
    transaction: ReadTransaction,
    question: Question,
    page: PageRequest,
    namespaces: Collection[int] | None,
    *,
    over_all: bool,
) -> tuple[Sequence[PrincipalGrant], NextPage]:
    """Returns a page of grants that give the permission, and where the next page begins.

    The grants are valid and belong to users who may log in. `namespaces` are the namespaces whose grants are returned,
    None for all of them. `over_all`: also return grants over all namespaces.
    """
    wanted: ColumnElement[bool] = USER_ROLES.c.namespace_id.is_not(None)
    if namespaces is not None:
        wanted = USER_ROLES.c.namespace_id.in_(namespaces)
    if question.only_over_all:
        wanted = false()
    if over_all:
        wanted = or_(USER_ROLES.c.namespace_id.is_(None), wanted)
    query = (
        select(
            USERS.c.username,
            ROLES.c.name.label("role"),
            NAMESPACES.c.name.label("namespace"),
            USER_ROLES.c.namespace_id,
            USER_ROLES.c.expires_at,
            USER_ROLES.c.assigned_at,
            USERS.c.id.label("user_id"),
            _IS_ACCOUNT.label("service_account"),
            _HOMES.c.name.label("account_namespace"),
        )
        .select_from(
            USER_ROLES.join(USERS, USERS.c.id == USER_ROLES.c.user_id)
            .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
            .outerjoin(
                NAMESPACES,
                and_(NAMESPACES.c.id == USER_ROLES.c.namespace_id, NAMESPACES.c.deleted_at.is_(None)),
            )
            .outerjoin(_HOMES, _HOMES.c.id == USERS.c.namespace_id)
        )
        .where(
            USERS.c.deleted_at.is_(None),
            USERS.c.status == "active",
            _lives(),
            or_(USER_ROLES.c.namespace_id.is_(None), NAMESPACES.c.id.is_not(None)),
            _names(question),
            wanted,
            compile_filter(page.filter, _FILTERS),
        )
    )
    order = parse_order_by(page.order_by, _ORDERS, default="username", unique=USER_ROLES.c.id)
    rows: Sequence[Any] = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [
        PrincipalGrant(
            username=row.username,
            role=row.role,
            namespace=row.namespace or "",
            expires_at=row.expires_at,
            assigned_at=row.assigned_at,
            user_id=row.user_id,
            namespace_id=row.namespace_id,
            service_account=row.service_account,
            account_namespace=row.account_namespace or "",
        )
        for row in rows
    ], next_page


@dataclass(frozen=True, slots=True)
class KeyOf:
    """A valid key that may give the permission.

    `namespace_ids` None: the key is not limited to namespaces.
    """

    user_id: int
    name: str
    namespace_ids: frozenset[int] | None


async def keys_naming(
    transaction: ReadTransaction, user_ids: Collection[int], question: Question
) -> list[KeyOf]:
    """Returns valid keys of these users that do not exclude the permission; at most 20 of each user, by name."""
    named = or_(
        API_KEYS.c.permissions.is_(None),
        API_KEYS.c.permissions.has_any(cast(array(question.forms), ARRAY(String))),
    )
    numbered = (
        select(
            API_KEYS.c.user_id,
            API_KEYS.c.name,
            API_KEYS.c.namespace_ids,
            func.row_number()
            .over(partition_by=API_KEYS.c.user_id, order_by=(API_KEYS.c.name, API_KEYS.c.id))
            .label("place"),
        )
        .where(
            API_KEYS.c.user_id.in_(user_ids),
            API_KEYS.c.revoked_at.is_(None),
            API_KEYS.c.expires_at > func.now(),
            named,
            true() if question.reads else not_(API_KEYS.c.read_only),
        )
        .subquery("numbered")
    )
    query = (
        select(numbered.c.user_id, numbered.c.name, numbered.c.namespace_ids)
        .where(numbered.c.place <= _MOST_KEYS)
        .order_by(numbered.c.user_id, numbered.c.place)
    )
    return [
        KeyOf(row.user_id, row.name, None if row.namespace_ids is None else frozenset(row.namespace_ids))
        for row in (await transaction.connection.execute(query)).all()
    ]
