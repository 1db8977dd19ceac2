"""Containers as they are answered without being rendered (see `store.rendered`)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, select, text

from pilothouse_server.containers.model import CachedContainer
from pilothouse_server.containers.tables import CONTAINERS
from pilothouse_server.store.references import NAMESPACES, creator
from pilothouse_server.store.rendered import RENDERED, is_cached
from pilothouse_server.store.unit_of_work import Store

_CALL = text(
    "SELECT id, namespace_id, creator, message, status, started_at "
    "FROM read_container(:user_id, :namespace, :name, :format)"
)


@lru_cache(maxsize=8)
def cached(message_format: int | ColumnElement[int]) -> Select[Any]:
    """Selects the answers about containers from the cache, without rendering; the database function is this select
    for one name.
    """
    return select(
        CONTAINERS.c.id,
        CONTAINERS.c.namespace_id,
        creator(CONTAINERS.c.created_by),
        RENDERED.c.message,
        CONTAINERS.c.status,
        CONTAINERS.c.started_at,
    ).select_from(
        CONTAINERS.join(NAMESPACES, NAMESPACES.c.id == CONTAINERS.c.namespace_id).outerjoin(
            RENDERED, is_cached("container", CONTAINERS, message_format)
        )
    )


async def find_cached(
    store: Store, user_id: int, namespace: str, name: str, message_format: int
) -> CachedContainer | None:
    """The container of this name, if the caller reaches it, in one round trip."""
    named = {"namespace": namespace, "name": name, "format": message_format}
    rows = await store.call(user_id, _CALL, named)
    return cached_container(rows[0]) if rows else None


def cached_container(row: Any) -> CachedContainer:
    """The value of a row of `cached`, which may have more columns."""
    return CachedContainer(row.id, row.namespace_id, row.creator, row.message, row.status, row.started_at)
