"""Selects rows that belong to namespaces, for lists and watches.

The rows are those of one namespace, or of all namespaces that the caller sees, by label, name and status. The selects
have no columns, as `keys` of `paging.paginate_rows` requires.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Select, Table, bindparam, select

from pilothouse_server.store.connection import Connection
from pilothouse_server.store.filtering import label_selector_condition
from pilothouse_server.store.paging import OrderColumn, OrderSpec, read_in_pages
from pilothouse_server.store.results import Row
from pilothouse_server.values.labels import LabelSelector


@cache
def _by_namespace(table: Table) -> OrderSpec:
    # An index has this order. If several kinds share a table, a name may occur once for each kind.
    columns = [OrderColumn("namespace", table.c.namespace_id), OrderColumn("name", table.c.name)]
    if "kind" in table.c:
        columns.append(OrderColumn("", table.c.id))
    return OrderSpec(tuple(columns))


def narrowed(
    keys: Select[Any],
    table: Table,
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
) -> Select[Any]:
    """Returns `keys` restricted to one namespace and a selector.

    Without a namespace it is restricted to the `visible` ones (None: all).
    """
    if namespace_id is not None:
        keys = keys.where(table.c.namespace_id == namespace_id)
    elif visible is not None:
        keys = keys.where(table.c.namespace_id.in_(visible))
    if selector is not None:
        keys = keys.where(label_selector_condition(table.c.labels, selector))
    return keys


_IN_NAMESPACE, _IN_THOSE, _NAME, _STATUS = "in_namespace", "in_those", "of_name", "of_status"
_FIELD = "of_field_"


@dataclass(frozen=True, slots=True)
class Matching:
    """The condition for the resources that a watch begins with.

    They are in one namespace, or else in the `visible` namespaces (None: all). An empty name or status matches
    everything. `fields` contains columns and the text that each must have.
    """

    namespace_id: int | None
    selector: LabelSelector | None
    visible: Collection[int] | None
    name: str = ""
    status: str = ""
    fields: tuple[tuple[str, str], ...] = ()


def read_matching(
    connection: Connection, whole: Select[Any], table: Table, wanted: Matching, *, most_rows: int = 250
) -> AsyncIterator[Sequence[Row]]:
    """Yields all rows that match, by namespace and name, in pages.

    See `paging.read_in_pages`. `whole` must be the same object in all calls. Only bound values differ from call to
    call, because building a select costs more than running it.
    """
    parameters: dict[str, Any] = {}
    if wanted.namespace_id is not None:
        parameters[_IN_NAMESPACE] = wanted.namespace_id
    elif wanted.visible is not None:
        parameters[_IN_THOSE] = list(wanted.visible)
    if wanted.name:
        parameters[_NAME] = wanted.name
    if wanted.status:
        parameters[_STATUS] = wanted.status
    parameters |= {f"{_FIELD}{name}": text for name, text in wanted.fields}
    keys = _selected(table, frozenset(parameters))
    if wanted.selector is not None:
        keys = keys.where(label_selector_condition(table.c.labels, wanted.selector))
    return read_in_pages(
        connection,
        whole,
        keys,
        table.c.id,
        _by_namespace(table),
        parameters=parameters,
        kept=wanted.selector is None,
        most_rows=most_rows,
    )


@lru_cache(maxsize=64)
def _selected(table: Table, conditions: frozenset[str]) -> Select[Any]:
    keys = select().select_from(table)
    if _IN_NAMESPACE in conditions:
        keys = keys.where(table.c.namespace_id == bindparam(_IN_NAMESPACE))
    if _IN_THOSE in conditions:
        keys = keys.where(table.c.namespace_id.in_(bindparam(_IN_THOSE, expanding=True)))
    if _NAME in conditions:
        keys = keys.where(table.c.name == bindparam(_NAME))
    if _STATUS in conditions:
        keys = keys.where(table.c.status == bindparam(_STATUS))
    for condition in sorted(conditions):
        if condition.startswith(_FIELD):
            keys = keys.where(table.c[condition.removeprefix(_FIELD)] == bindparam(condition))
    return keys
