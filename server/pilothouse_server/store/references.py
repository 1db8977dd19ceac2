"""The references of every noun's rows: a resource's namespace and its creator.

Other nouns own these tables; here they are only joined. If a select names `IN_NAMESPACE` and joins `NAMESPACES`,
`namespace_ref` makes the namespace's value of each row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    FromClause,
    Select,
    String,
    Table,
    column,
    or_,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.sql import visitors

from pilothouse_server.store.results import Row
from pilothouse_server.values.resources import NamespaceId, NamespaceRef

NAMESPACES = table(
    "namespaces",
    column("id", BigInteger()),
    column("name", String(63)),
    column("cluster_name", String(100)),
    column("kubernetes_name", String(63)),
    column("uid", UUID()),
    column("deleted_at", DateTime(timezone=True)),
    column("observed_generation", BigInteger()),
    column("adopted", Boolean()),
    column("phase", String(20)),
    column("conditions", JSONB()),
    schema="public",
)
USERS = table("users", column("id", BigInteger()), column("username", String(50)), schema="public")

IN_NAMESPACE = (
    NAMESPACES.c.name.label("namespace_name"),
    NAMESPACES.c.uid.label("namespace_uid"),
    NAMESPACES.c.cluster_name,
    NAMESPACES.c.kubernetes_name.label("kubernetes_namespace"),
)


def creator(created_by: ColumnElement[Any]) -> ColumnElement[Any]:
    """Returns a subquery for the name of the user with this id.

    It is NULL if the caller may not see that user. For few rows it costs less than a join, which PostgreSQL sets up,
    with the row-level security of users, even if no row names a user.
    """
    return select(USERS.c.username).where(USERS.c.id == created_by).scalar_subquery().label("creator")


def namespace_ref(row: Row) -> NamespaceRef:
    """Returns the namespace of a row that has `namespace_id` and `IN_NAMESPACE`."""
    return NamespaceRef(
        id=NamespaceId(row.namespace_id),
        name=row.namespace_name,
        uid=str(row.namespace_uid),
        cluster_name=row.cluster_name,
        kubernetes_name=row.kubernetes_namespace,
    )


def reconciled_fields(row: Row) -> dict[str, Any]:
    """Returns the fields of `Reconciled`, from a row with its creator's name.

    See `values.resources`.
    """
    return {
        "namespace_ref": namespace_ref(row),
        "generation": row.generation,
        "observed_generation": row.observed_generation,
        "resource_version": row.resource_version,
        "row_version": row.row_version,
        "deletion_requested_at": row.deletion_requested_at,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "created_by": row.creator or "",
    }


def reconciling(table: FromClause) -> ColumnElement[bool]:
    """Returns the condition that the cluster does not yet match the row.

    It is for the field `reconciling` of responses.
    """
    behind: ColumnElement[bool] = table.c.observed_generation < table.c.generation
    return or_(behind, table.c.deletion_requested_at.is_not(None))


def keys_of(table: Table, condition: ColumnElement[bool]) -> Select[Any]:
    """Returns a select without columns of the rows of `table` under a condition.

    It is for `keys` of `paginate_rows`. The namespace and the creator are joined only if the condition names one of
    their columns.
    """
    keys = select().select_from(table)
    if is_about(condition, NAMESPACES):
        keys = keys.join(NAMESPACES, NAMESPACES.c.id == table.c.namespace_id)
    if is_about(condition, USERS):
        keys = keys.outerjoin(USERS, USERS.c.id == table.c.created_by)
    return keys.where(condition)


def is_about(condition: ColumnElement[bool], table: FromClause) -> bool:
    """Returns whether a condition names a column of the table."""
    return any(getattr(part, "table", None) is table for part in visitors.iterate(condition))
