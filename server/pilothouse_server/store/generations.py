"""Writes the next generation of a resource that is on a cluster, for every noun."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, func, update

from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.resources import Reconciled


async def write_generation(
    transaction: Transaction, table: Table, resource_id: int, stored: Reconciled, values: dict[str, Any]
) -> None:
    """Writes values of a row that the transaction has locked, as its next generation."""
    await transaction.connection.execute(
        update(table)
        .where(table.c.id == resource_id)
        .values(
            **values,
            generation=stored.generation + 1,
            resource_version=table.c.resource_version + 1,
            updated_at=func.now(),
            updated_by=transaction.actor.user_id,
        )
    )


async def deletion_values(transaction: Transaction) -> dict[str, Any]:
    """Returns the values of a row that is marked for deletion."""
    moment = await transaction.moment()
    return {"deletion_requested_at": moment, "status": "deleted", "reason": None, "message": None}
