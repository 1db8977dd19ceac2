"""The rules of reading the audit log."""

from __future__ import annotations

from uuid import UUID

from pilothouse_server.audit import repository
from pilothouse_server.audit.model import Operation
from pilothouse_server.audit.repository import Sight
from pilothouse_server.errors import not_found
from pilothouse_server.store.unit_of_work import ReadTransaction

__all__ = [
    "Sight",
    "list_operations",
    "list_stats",
    "locate",
    "oldest_sequence",
    "operations_between",
]

list_operations = repository.list_operations
list_stats = repository.list_stats
oldest_sequence = repository.oldest_sequence
operations_between = repository.operations_between


async def locate(transaction: ReadTransaction, operation_id: UUID, sight: Sight) -> Operation:
    """The record of a call; NotFound, alike where there is none and where the caller may not see it."""
    found = await repository.find_operation(transaction, operation_id, sight)
    if found is None:
        raise not_found("operation", str(operation_id))
    return found
