"""The rows of a noun as the reconciler reads and writes them: the cluster's state of its resources, with events.

Rows are locked, loaded and compared in the transaction that writes them. An observer skips locked rows; a worker waits
for its single row. Each statement handles all rows of a batch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import orjson
from sqlalchemy import TextClause, text

from pilothouse_server.store.unit_of_work import Event, ReadTransaction, Transaction

ResourceT = TypeVar("ResourceT", bound=msgspec.Struct)
ObservedT = TypeVar("ObservedT")


LoadedT_co = TypeVar("LoadedT_co", covariant=True)


class _Get(Protocol[LoadedT_co]):
    def __call__(
        self, transaction: ReadTransaction, resource_id: int, /, *, lock: bool = False
    ) -> Awaitable[LoadedT_co | None]: ...


class ObservedChange(msgspec.Struct, Generic[ResourceT, ObservedT], frozen=True):
    """A resource as loaded under lock, and the values to write."""

    resource: ResourceT
    observed: ObservedT
    observed_generation: int


@dataclass(eq=False)
class ObservedRows(Generic[ResourceT, ObservedT]):
    """The rows of `table`; `condition`, SQL about `r`, selects the rows with an object on the cluster.

    `work` is the type of these resources in the queue: while a worker has a new one in hand, observers leave its state
    to the worker. `get` and `get_many` load resources, `event` makes the event of a change, `update` writes rows of
    JSON, and `row` returns the columns of one.
    """

    table: str
    get: _Get[ResourceT]
    get_many: Callable[[ReadTransaction, Sequence[int]], Awaitable[Sequence[ResourceT]]]
    event: Callable[[ResourceT, Any, ResourceT], Event]
    update: TextClause
    row: Callable[[ResourceT, ObservedT], Mapping[str, Any]]
    condition: str = "true"
    work: str = ""

    def __post_init__(self) -> None:
        rows = f"FROM {self.table} AS r JOIN namespaces AS n ON n.id = r.namespace_id"
        of_cluster = f"{rows} WHERE n.cluster_name = :cluster_name AND {self.condition}"
        of_uids = f"{rows} WHERE n.cluster_name = :cluster_name AND r.uid = ANY(CAST(:uids AS uuid[]))"
        # A worker that applies a resource for the first time writes its state with the result.
        in_hand = (
            "r.observed_generation = 0 AND EXISTS (SELECT FROM reconcile_work AS w "
            f"WHERE w.resource_type = '{self.work}' AND w.resource_id = r.id "
            "AND w.leased_until > statement_timestamp())"
        )
        self._lock_free = text(
            f"SELECT r.id {of_uids} AND NOT ({in_hand}) ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED"
        )
        self._there = text(f"SELECT r.id, r.uid::text AS uid {of_uids}")
        self._of_cluster = text(f"SELECT r.id, r.uid::text AS uid {of_cluster}")
        self._known = text(
            f"SELECT uid::text AS uid FROM {self.table} "  # noqa: S608 - our own words
            "WHERE uid = ANY(CAST(:uids AS uuid[]))"
        )
        since = "COALESCE((SELECT stale_since FROM clusters WHERE name = :cluster_name), now())"
        self._marks: dict[bool, TextClause] = {}
        self._remaining: dict[bool, TextClause] = {}
        for stale, unmarked, value in ((True, "NULL", since), (False, "NOT NULL", "NULL")):
            others = f"{of_cluster} AND r.stale_since IS {unmarked}"
            # Rows that another transaction has locked are marked in the next round.
            self._marks[stale] = text(
                f"WITH chosen AS (SELECT r.id {others} "  # noqa: S608 - our own words
                "ORDER BY r.id LIMIT :rows FOR NO KEY UPDATE OF r SKIP LOCKED) "
                f"UPDATE {self.table} AS r SET stale_since = {value} "
                "FROM chosen WHERE r.id = chosen.id RETURNING r.id"
            )
            self._remaining[stale] = text(f"SELECT 1 {others} LIMIT 1")

    async def lock_free_uids(
        self, transaction: Transaction, cluster_name: str, uids: Sequence[str]
    ) -> Sequence[ResourceT]:
        """Locks and returns the resources of a cluster that are neither locked nor new and in hand.

        Objects of another cluster may carry the uids of resources of this one.
        """
        keys = {"uids": list(uids), "cluster_name": cluster_name}
        ids = [row.id for row in await transaction.connection.execute(self._lock_free, keys)]
        return await self.get_many(transaction, ids) if ids else []

    async def there(
        self, transaction: ReadTransaction, cluster_name: str, uids: Sequence[str]
    ) -> dict[str, int]:
        """Returns those of `uids` (which must be UUIDs) that are resources of this cluster, with their ids."""
        keys = {"uids": list(uids), "cluster_name": cluster_name}
        return {row.uid: row.id for row in await transaction.connection.execute(self._there, keys)}

    async def of_cluster(self, transaction: ReadTransaction, cluster_name: str) -> dict[str, int]:
        """Returns uid → id of all resources with an object on a cluster."""
        rows = await transaction.connection.execute(self._of_cluster, {"cluster_name": cluster_name})
        return {row.uid: row.id for row in rows}

    async def known_uids(self, transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
        """Returns those of `uids` (which must be UUIDs) that are resources of any cluster."""
        rows = await transaction.connection.execute(self._known, {"uids": list(uids)})
        return {row.uid for row in rows}

    async def write(
        self, transaction: Transaction, changes: Iterable[ObservedChange[ResourceT, ObservedT]]
    ) -> None:
        """Writes differences, with their events."""
        rows: list[Mapping[str, Any]] = []
        written: list[tuple[ResourceT, ResourceT]] = []
        for each in changes:
            before: Any = each.resource
            if (each.observed, each.observed_generation) == (before.observed, before.observed_generation):
                continue
            place = {"id": before.id, "observed_generation": each.observed_generation}
            rows.append(place | dict(self.row(before, each.observed)))
            after = msgspec.structs.replace(
                before,
                observed=each.observed,
                observed_generation=each.observed_generation,
                updated_at=transaction.now,
                row_version=before.row_version + 1,
            )
            written.append((before, after))
        if not rows:
            return
        await transaction.connection.execute(self.update, {"rows": orjson.dumps(rows).decode()})
        for before, after in written:
            transaction.emit(self.event(after, "modified", before))

    async def mark(self, transaction: Transaction, cluster_name: str, *, stale: bool, rows: int) -> bool:
        """Marks up to `rows` resources of a cluster stale or fresh, with events.

        Returns whether others remain.
        """
        keys = {"cluster_name": cluster_name, "rows": rows}
        marked = await transaction.connection.execute(self._marks[stale], keys)
        for each in await self.get_many(transaction, [row.id for row in marked]):
            transaction.emit(self.event(each, "modified", each))
        remaining = await transaction.connection.execute(
            self._remaining[stale], {"cluster_name": cluster_name}
        )
        return remaining.first() is not None
