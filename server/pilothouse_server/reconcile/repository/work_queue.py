"""The work queue: one row per resource whose cluster state may differ from the desired one.

A row is leased for `lease_seconds` under a new epoch; renewals extend the lease while the work is in hand. The lease
moves `due_at` to its own end. A mutation during the lease moves `due_at` back to now, so `release` sees that there is
more to do. Rows stay after their work is done, due again after a long time: epochs never restart while their resource
lives, and drift is checked periodically.

Lock order, the same as in every mutation: the resource's row first, its work row second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import text

from pilothouse_server.reconcile.repository.applied_objects import as_noted
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

ResourceType = Literal["container", "namespace", "config_map", "secret", "volume", "service", "object"]


_NOBODY: Final[Mapping[str, int]] = {}


class Work(msgspec.Struct, frozen=True):
    """A leased row.

    `lease_owner` is unique to the lease; each lease increases `lease_epoch`.
    """

    resource_type: str
    resource_id: int
    cluster_name: str
    namespace_id: int | None
    attempts: int
    lease_owner: str
    lease_epoch: int


class Release(msgspec.Struct, frozen=True):
    """The end of a lease: the row is due again in `due_in_seconds`.

    `attempts`: the number of failures in a row. `objects`: the applied objects by kind and name, see `applied_objects`;
    None leaves the stored ones.
    """

    work: Work
    due_in_seconds: float
    attempts: int = 0
    error: str = ""
    objects: Mapping[str, str] | None = None


# The last row returns the seconds until more work is due, if known; the end of a lease counts as such a time.
_LEASE = text(
    "SELECT * FROM lease_work(:owner, :lease_seconds, :most, CAST(:clusters AS text[]), CAST(:free AS integer[]), "
    "CAST(:busy AS bigint[]), CAST(:held AS integer[]))"
)

# Rows that a mutation or a write-back has locked are skipped until the next renewal: waiting would break the lock
# order.
_RENEW = text("""
WITH held AS (
    SELECT work.resource_type, work.resource_id FROM reconcile_work AS work
    JOIN unnest(CAST(:types AS text[]), CAST(:ids AS bigint[]), CAST(:epochs AS bigint[]), CAST(:owners AS text[]))
      AS held_lease (resource_type, resource_id, lease_epoch, lease_owner)
      USING (resource_type, resource_id, lease_epoch, lease_owner)
    FOR UPDATE OF work SKIP LOCKED)
UPDATE reconcile_work AS work
SET leased_until = statement_timestamp() + make_interval(secs => :lease_seconds),
    due_at = CASE WHEN work.due_at < work.leased_until OR work.leased_until <= statement_timestamp() THEN work.due_at
             ELSE statement_timestamp() + make_interval(secs => :lease_seconds) END
FROM held WHERE work.resource_type = held.resource_type AND work.resource_id = held.resource_id
RETURNING work.resource_type, work.resource_id
""")

_HOLD = text("""
SELECT work.resource_type, work.resource_id FROM reconcile_work AS work
JOIN unnest(CAST(:types AS text[]), CAST(:ids AS bigint[]), CAST(:epochs AS bigint[]), CAST(:owners AS text[]))
  AS held_lease (resource_type, resource_id, lease_epoch, lease_owner)
  USING (resource_type, resource_id, lease_epoch, lease_owner)
ORDER BY work.resource_type, work.resource_id FOR UPDATE OF work
""")

_RELEASE = text(
    "SELECT release_work(CAST(:types AS text[]), CAST(:ids AS bigint[]), CAST(:epochs AS bigint[]), "
    "CAST(:owners AS text[]), CAST(:seconds AS double precision[]), CAST(:attempts AS integer[]), "
    "CAST(:errors AS text[]), CAST(:objects AS text[]))"
)

_REMOVE = text(
    "DELETE FROM reconcile_work WHERE resource_type = :resource_type AND resource_id = :resource_id"
)

# Unlike a mutation, this keeps `attempts`: a difference that the reconciler itself notices must not undo a backoff.
_REQUEUE_CONTAINERS = text("""
INSERT INTO reconcile_work AS work (resource_type, resource_id, cluster_name, namespace_id, due_at)
SELECT 'container', c.id, n.cluster_name, c.namespace_id, clock_timestamp() + make_interval(secs => :seconds)
FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE c.id = ANY(CAST(:ids AS bigint[])) ORDER BY c.id
ON CONFLICT (resource_type, resource_id) DO UPDATE
SET due_at = CASE WHEN work.attempts > 0 THEN work.due_at ELSE LEAST(work.due_at, EXCLUDED.due_at) END
""")

# A transaction that deletes a resource also deletes its work. An insert that waits for that transaction still sees the
# resource in its snapshot, and would leave work of a deleted resource. A later statement sees the deletion.
_LEAVE_NOTHING_OF_CONTAINERS = text("""
DELETE FROM reconcile_work AS work
WHERE work.resource_type = 'container' AND work.resource_id = ANY(CAST(:ids AS bigint[]))
  AND NOT EXISTS (SELECT FROM containers AS c WHERE c.id = work.resource_id)
""")
_LEAVE_NOTHING_OF_NAMESPACES = text("""
DELETE FROM reconcile_work AS work
WHERE work.resource_type = 'namespace' AND work.resource_id = ANY(CAST(:ids AS bigint[]))
  AND NOT EXISTS (SELECT FROM namespaces AS n WHERE n.id = work.resource_id AND n.deleted_at IS NULL)
""")

_REQUEUE_NAMESPACES = text("""
INSERT INTO reconcile_work AS work (resource_type, resource_id, cluster_name, namespace_id, due_at)
SELECT 'namespace', id, cluster_name, id, clock_timestamp() + make_interval(secs => :seconds)
FROM namespaces WHERE id = ANY(CAST(:ids AS bigint[])) AND deleted_at IS NULL ORDER BY id
ON CONFLICT (resource_type, resource_id) DO UPDATE
SET due_at = CASE WHEN work.attempts > 0 THEN work.due_at ELSE LEAST(work.due_at, EXCLUDED.due_at) END
""")

# For resources whose work row exists as long as they do, because only their own work removes it. Workers lock rows in
# the same order.
_REQUEUE = text("""
WITH chosen AS (
    SELECT work.resource_type, work.resource_id FROM reconcile_work AS work
    JOIN unnest(CAST(:types AS text[]), CAST(:ids AS bigint[])) AS asked (resource_type, resource_id)
      USING (resource_type, resource_id)
    ORDER BY work.resource_type, work.resource_id FOR UPDATE OF work)
UPDATE reconcile_work AS work
SET due_at = CASE WHEN work.attempts > 0 THEN work.due_at ELSE LEAST(work.due_at, clock_timestamp()) END
FROM chosen WHERE work.resource_type = chosen.resource_type AND work.resource_id = chosen.resource_id
""")

# When a cluster is back, each failed work is tried immediately, despite its backoff. Rows that a mutation has locked
# are skipped: the mutation makes them due itself.
_REQUEUE_FAILED = text("""
WITH failed AS (
    SELECT resource_type, resource_id FROM reconcile_work
    WHERE cluster_name = :cluster_name AND attempts > 0 AND leased_until IS NULL FOR UPDATE SKIP LOCKED)
UPDATE reconcile_work AS work SET due_at = clock_timestamp(), attempts = 0, updated_at = clock_timestamp()
FROM failed WHERE work.resource_type = failed.resource_type AND work.resource_id = failed.resource_id
""")


# Read after the desired state: if an apply of an application commits in between, the work of rows that it changed is
# held.
_HELD = text("""
SELECT work.resource_type, work.resource_id FROM reconcile_work AS work
JOIN unnest(CAST(:types AS text[]), CAST(:ids AS bigint[])) AS loaded (resource_type, resource_id)
  USING (resource_type, resource_id)
WHERE work.held AND NOT work.going
""")


class Leased(msgspec.Struct, frozen=True):
    """Leased work, and the seconds until more is due; None if no further work is known."""

    works: list[Work]
    next_seconds: float | None


async def lease(
    connection: Connection,
    *,
    owner: str,
    lease_seconds: float,
    most: int,
    free: Mapping[str, int] = _NOBODY,
    held: Mapping[int, int] | None = None,
) -> Leased:
    """Leases due work that no other server holds, the oldest first, in a transaction of its own.

    It leases at most `most` rows of a cluster, or as many as `free` gives for it. `owner` must be unique to the lease.
    If `held` gives the number of busy workers by namespace, no namespace gets all workers of a cluster.
    """
    parameters = {
        "owner": owner,
        "lease_seconds": lease_seconds,
        "most": most,
        "clusters": list(free),
        "free": list(free.values()),
        "busy": None if held is None else list(held),
        "held": None if held is None else list(held.values()),
    }
    *leased, last = (await connection.execute(_LEASE, parameters)).all()
    return Leased([Work(*row[:7]) for row in leased], last.next_seconds)


async def renew(transaction: Transaction, leased: Sequence[Work], *, lease_seconds: float) -> list[Work]:
    """Renews leases; returns the work whose lease was still held."""
    rows = await transaction.connection.execute(_RENEW, {**_keys(leased), "lease_seconds": lease_seconds})
    return _those(leased, rows)


async def hold(transaction: Transaction, leased: Sequence[Work]) -> list[Work]:
    """Locks work rows, in the order of their keys; returns the work whose lease is held.

    Nothing may be written for the rest.
    """
    return _those(leased, await transaction.connection.execute(_HOLD, _keys(leased)))


async def waiting(transaction: ReadTransaction, leased: Sequence[Work]) -> list[Work]:
    """Returns the work that is held until its step of an application begins.

    For this work, leave the cluster as it is.
    """
    keys = {"types": [work.resource_type for work in leased], "ids": [work.resource_id for work in leased]}
    return _those(leased, await transaction.connection.execute(_HELD, keys))


async def release(transaction: Transaction, releases: Sequence[Release]) -> None:
    """Ends leases.

    A row for which more work arrived is due again immediately. Lost leases are left alone.
    """
    if not releases:
        return
    parameters = {
        **_keys([release.work for release in releases]),
        "seconds": [release.due_in_seconds for release in releases],
        "attempts": [release.attempts for release in releases],
        "errors": [release.error or None for release in releases],
        "objects": [as_noted(release.objects) for release in releases],
    }
    await transaction.connection.execute(_RELEASE, parameters)


async def remove(transaction: Transaction, resource_type: str, resource_id: int) -> None:
    """Removes a work row in the transaction that removes its resource."""
    await transaction.connection.execute(
        _REMOVE, {"resource_type": resource_type, "resource_id": resource_id}
    )


async def requeue_containers(
    transaction: Transaction, container_ids: list[int], *, due_in_seconds: float = 0.0
) -> None:
    """Has these containers reconciled, without shortening a backoff."""
    if container_ids:
        await transaction.connection.execute(
            _REQUEUE_CONTAINERS, {"ids": container_ids, "seconds": due_in_seconds}
        )
        await transaction.connection.execute(_LEAVE_NOTHING_OF_CONTAINERS, {"ids": container_ids})


async def requeue_namespaces(
    transaction: Transaction, namespace_ids: list[int], *, due_in_seconds: float = 0.0
) -> None:
    """Has these namespaces reconciled, without shortening a backoff."""
    if namespace_ids:
        await transaction.connection.execute(
            _REQUEUE_NAMESPACES, {"ids": namespace_ids, "seconds": due_in_seconds}
        )
        await transaction.connection.execute(_LEAVE_NOTHING_OF_NAMESPACES, {"ids": namespace_ids})


async def requeue(transaction: Transaction, resources: Collection[tuple[str, int]]) -> None:
    """Has resources of any type, by type and id, reconciled without shortening a backoff.

    Several calls in one transaction must follow the order of type and id: workers lock work in that order.
    """
    if resources:
        keys = {"types": [type_ for type_, _ in resources], "ids": [id_ for _, id_ in resources]}
        await transaction.connection.execute(_REQUEUE, keys)


async def requeue_by_type(
    begin: Callable[[], AbstractAsyncContextManager[Transaction]], resources: Collection[tuple[str, int]]
) -> None:
    """Requeues resources of several types as `requeue`, in a transaction of its own for each type.

    A mutation of several resources locks their work in the order in which it writes them. A transaction that holds work
    of one type while it waits for work of another could deadlock with that mutation.
    """
    for _, of_type in groupby(sorted(resources), key=itemgetter(0)):
        async with begin() as transaction:
            await requeue(transaction, list(of_type))


async def requeue_failed(transaction: Transaction, cluster_name: str) -> None:
    """Makes all work of this cluster due that waits after a failure."""
    await transaction.connection.execute(_REQUEUE_FAILED, {"cluster_name": cluster_name})


def _keys(leased: Sequence[Work]) -> dict[str, object]:
    return {
        "types": [work.resource_type for work in leased],
        "ids": [work.resource_id for work in leased],
        "epochs": [work.lease_epoch for work in leased],
        "owners": [work.lease_owner for work in leased],
    }


def _those(leased: Sequence[Work], rows: Iterable[Any]) -> list[Work]:
    found = {(row.resource_type, row.resource_id) for row in rows}
    return [work for work in leased if (work.resource_type, work.resource_id) in found]
