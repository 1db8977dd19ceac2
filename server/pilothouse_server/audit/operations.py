"""The rules for reading the audit log."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pilothouse_server.audit import repository
from pilothouse_server.audit.model import AuditOperation
from pilothouse_server.audit.repository import Sight
from pilothouse_server.errors import not_found
from pilothouse_server.store.unit_of_work import ReadTransaction

__all__ = [
    "Sight",
    "check_filter",
    "drop_records",
    "exported_records",
    "list_operations",
    "list_stats",
    "locate",
    "locate_row",
    "oldest_sequence",
    "operations_between",
    "visible_records",
]

check_filter = repository.check_filter
drop_records = repository.drop_records
exported_records = repository.exported_records
list_operations = repository.list_operations
list_stats = repository.list_stats
oldest_sequence = repository.oldest_sequence
visible_records = repository.visible_records
operations_between = repository.operations_between


async def locate(transaction: ReadTransaction, operation_id: UUID, sight: Sight) -> AuditOperation:
    """Returns the record of a call. Raises the same NotFound if there is none and if the caller may not see it."""
    found = await repository.find_operation(transaction, operation_id, sight)
    if found is None:
        raise not_found("operation", str(operation_id))
    return found


async def locate_row(transaction: ReadTransaction, operation_id: UUID, sight: Sight, sequence: int) -> Any:
    """Returns the stored row of a record; of a stream's two, that at `sequence` or the later. Raises as `locate`."""
    found = await repository.find_row(transaction, operation_id, sight, sequence)
    if found is None:
        raise not_found("operation", str(operation_id))
    return found
