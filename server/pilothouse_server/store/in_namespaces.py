"""The rows of one table that live in namespaces, as lists and watches ask for them: those of one namespace, or of all
that the caller sees, by label, name and status.

The selects have no columns: `keys` of `paging.paginate_rows` and `paging.read_in_pages`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, Table, select

from pilothouse_server.store.filtering import label_selector_condition
from pilothouse_server.store.paging import OrderColumn, OrderSpec
from pilothouse_server.values.labels import LabelSelector


def by_namespace(table: Table) -> OrderSpec:
    """Returns the order of a first state: by namespace and name, which an index has."""
    return OrderSpec((OrderColumn("namespace", table.c.namespace_id), OrderColumn("name", table.c.name)))


def narrowed(
    keys: Select[Any],
    table: Table,
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
) -> Select[Any]:
    """Returns the select of those in one namespace, or else in those that are `visible`; None: in all of them."""
    if namespace_id is not None:
        keys = keys.where(table.c.namespace_id == namespace_id)
    elif visible is not None:
        keys = keys.where(table.c.namespace_id.in_(visible))
    if selector is not None:
        keys = keys.where(label_selector_condition(table.c.labels, selector))
    return keys


def matching(
    table: Table,
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
    *,
    name: str = "",
    status: str = "",
) -> Select[Any]:
    """Returns the select of all that a watch begins with; an empty word matches everything."""
    keys = narrowed(select().select_from(table), table, namespace_id, selector, visible)
    if name:
        keys = keys.where(table.c.name == name)
    if status:
        keys = keys.where(table.c.status == status)
    return keys
