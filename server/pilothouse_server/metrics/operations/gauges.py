"""Exports the state of the database as Prometheus metrics: size, connections, bloat, growth by partition.

Only servers that serve metrics read the state, once a minute. Label values that a read no longer finds are removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Gauge

from pilothouse_server.clusters.operations import orphans
from pilothouse_server.errors import PilothouseError
from pilothouse_server.metrics.model import DatabaseStats, OldestSnapshot
from pilothouse_server.metrics.operations.database import changes_set_aside, database_stats, oldest_snapshots
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

PERIOD_SECONDS: Final = 60.0
_SET_ASIDE = Gauge(
    "pilothouse_pending_incidents", "Committed changes in pending_incidents, which could not be numbered."
)
_NO_TABLE: Final = "-"  # no table has this name, so no columns are read

_SIZE = Gauge("pilothouse_database_bytes", "Bytes of the database on disk.")
_MOST = Gauge("pilothouse_database_max_connections", "Connections that PostgreSQL allows.")
_CONNECTIONS = Gauge(
    "pilothouse_database_connections", "Connections to the database.", ("role", "application", "state")
)
_BLOAT = Gauge(
    "pilothouse_database_bloat_bytes", "Bytes of tables and indexes that are empty.", ("table", "kind")
)
_PARTITION = Gauge(
    "pilothouse_database_partition_bytes", "Bytes of a partition with indexes.", ("table", "partition")
)
_ORPHANS = Gauge(
    "pilothouse_cluster_orphans",
    "Our objects on a cluster that are not in the database, by state.",
    ("cluster", "state"),
)
_ORPHANS_HELD = Gauge(
    "pilothouse_cluster_orphans_held",
    "Whether orphans of a cluster wait for an administrator because a new history began (1), or not (0).",
    ("cluster",),
)
_GROWTH = Gauge(
    "pilothouse_database_partition_growth_bytes_per_day",
    "Bytes that a partition has grown a day.",
    ("table", "partition"),
)
_OLDEST_SECONDS = Gauge(
    "pilothouse_database_oldest_xmin_seconds",
    "Age of the transaction with the oldest snapshot, by holder: session or prepared.",
    ("holder",),
)
_OLDEST_TRANSACTIONS = Gauge(
    "pilothouse_database_oldest_xmin_transactions",
    "Age of the oldest snapshot in transactions, by holder: session, standby, slot or prepared.",
    ("holder",),
)
_HOLDERS: Final = ("session", "standby", "slot", "prepared")
_HELD_LONG_SECONDS: Final = 600.0


class DatabaseGauges:
    """Updates the gauges of one database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Updates the gauges once a minute until cancelled; if a read fails, the gauges keep their values."""
        while True:
            try:
                await self.look()
            except PilothouseError as error:
                log.warning("the state of the database cannot be read", reason=error.reason)
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """Reads the state of the database and sets the gauges. Raises Unavailable."""
        _show(await database_stats(self._store, _NO_TABLE, 1))
        _SET_ASIDE.set(await changes_set_aside(self._store))
        _show_snapshots(await oldest_snapshots(self._store))
        _show_orphans(*await orphans.counts(self._store))


def _show_orphans(counts: dict[tuple[str, str], int], held: dict[str, bool]) -> None:
    for gauge in (_ORPHANS, _ORPHANS_HELD):
        gauge.clear()
    for (cluster, state), count in counts.items():
        _ORPHANS.labels(cluster, state).set(count)
    for cluster, is_held in held.items():
        _ORPHANS_HELD.labels(cluster).set(is_held)


def _show(stats: DatabaseStats) -> None:
    for gauge in (_CONNECTIONS, _BLOAT, _PARTITION, _GROWTH):
        gauge.clear()
    _SIZE.set(stats.database_bytes)
    _MOST.set(stats.max_connections)
    for each in stats.connections:
        _CONNECTIONS.labels(each.role_name, each.application_name, each.state).set(each.count)
    for table in stats.table_bloat:
        _BLOAT.labels(table.table_name, "table").set(table.table_bloat_bytes)
        _BLOAT.labels(table.table_name, "index").set(table.index_bloat_bytes)
    for part in stats.partition_growth:
        _PARTITION.labels(part.table_name, part.partition_name).set(part.total_bytes)
        _GROWTH.labels(part.table_name, part.partition_name).set(part.bytes_per_day)


def _show_snapshots(found: Sequence[OldestSnapshot]) -> None:
    held = {each.kind: each for each in found}
    for kind in _HOLDERS:
        oldest = held.get(kind)
        _OLDEST_TRANSACTIONS.labels(kind).set(0 if oldest is None else oldest.transactions)
        _OLDEST_SECONDS.labels(kind).set(0 if oldest is None else oldest.seconds)
        if oldest is not None and oldest.seconds >= _HELD_LONG_SECONDS:
            log.warning(
                "a transaction is open for so long that VACUUM cannot remove rows deleted since",
                holder=kind,
                name=oldest.name,
                state=oldest.state,
                seconds=round(oldest.seconds),
            )
