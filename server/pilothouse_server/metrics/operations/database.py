"""The state of the database, for callers who may see the whole platform."""

from __future__ import annotations

from pilothouse_server.metrics.model import DatabaseStats, OldestSnapshot, TableSize
from pilothouse_server.metrics.repository import database
from pilothouse_server.store.unit_of_work import Store


async def database_stats(store: Store, table_name: str, most_queries: int) -> DatabaseStats:
    """Returns the state of the database, with the columns of one table, or of all for ''. Raises Unavailable."""
    async with database.as_owner(store) as transaction:
        return await database.stats(transaction, table_name, most_queries)


async def changes_set_aside(store: Store) -> int:
    """Returns how many committed changes are set aside because they got no revision number. Raises Unavailable."""
    async with database.as_owner(store) as transaction:
        return await database.changes_set_aside(transaction)


async def oldest_snapshots(store: Store) -> tuple[OldestSnapshot, ...]:
    """Returns, of each kind, the oldest snapshot that keeps VACUUM from removing rows. Raises Unavailable."""
    async with database.as_owner(store) as transaction:
        return await database.oldest_snapshots(transaction)


async def table_sizes(store: Store, *, include_partitions: bool) -> list[TableSize]:
    """Returns the sizes of tables, largest first. Raises Unavailable."""
    async with database.as_owner(store) as transaction:
        return await database.table_sizes(transaction, include_partitions=include_partitions)
