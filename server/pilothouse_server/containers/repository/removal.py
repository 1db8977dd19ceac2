"""The end of containers' rows that no reconciler is to see through."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from pilothouse_server.containers.model import Container
from pilothouse_server.containers.repository.containers import get_many
from pilothouse_server.store.unit_of_work import Transaction

_LOCK = text("SELECT id FROM containers WHERE namespace_id = :id ORDER BY id FOR UPDATE")
_REMOVE = text("DELETE FROM containers WHERE namespace_id = :id")


async def remove_of_namespace(transaction: Transaction, namespace_id: int) -> Sequence[Container]:
    """Removes every container of a namespace, with all that belongs to it; answers them as they were."""
    locked = await transaction.connection.execute(_LOCK, {"id": namespace_id})
    found = await get_many(transaction, [row.id for row in locked])
    await transaction.connection.execute(_REMOVE, {"id": namespace_id})
    return found
