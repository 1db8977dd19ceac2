"""Containers as the reconciler reads and writes them: the cluster's state, with history, pods and events.

Rows are locked, loaded and compared in the transaction that writes them, so the result was computed from the
stored rows. An observer skips rows that another transaction has locked (`wait=False`) and retries them later,
because it locks many rows in one statement; a worker waits for its one row.

The etag (`resource_version`) stays: it guards the desired state, and would be useless to callers if each restart of a
pod changed it.

One statement each writes the rows, the history and the pods of a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.containers import repository
from pilothouse_server.containers.model import Container, Observed
from pilothouse_server.containers.repository import PlacedContainer
from pilothouse_server.containers.workloads import WORKLOADS
from pilothouse_server.kubernetes.events import Warned
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.program_observation import ORDINARY
from pilothouse_server.store.results import Result
from pilothouse_server.store.unit_of_work import Event, ReadTransaction, Transaction

Trigger = Literal["system", "kubernetes"]
# Reasons of an ordinary start of a pod.
ORDINARY_REASONS = ORDINARY | {
    "ContainersNotReady",
    "Creating",
    "ReplicasNotReady",
    "RollingOut",
    "RolloutHeld",
    "Scaling",
    "Terminating",
}
PULL_REASONS = {"ErrImagePull", "ImagePullBackOff"}


class Change(msgspec.Struct, frozen=True, gc=False):
    """A container as loaded under lock, and the values to write; `pods` None leaves its pods unchanged.

    `warnings` are further lines of the history; with `look_up`, those that the history already has are left out.
    """

    container: Container
    observed: Observed
    observed_generation: int
    observed_replicas: int | None = None
    pods: tuple[PodObservation, ...] | None = None
    warnings: tuple[Warned, ...] = ()
    look_up: bool = False

    @property
    def significant(self) -> bool:
        """Whether the state of the container itself differs; its pods do not count."""
        return (
            self.observed != self.container.observed
            or self.observed_generation != self.container.observed_generation
        )


_LOCK_IDS = text(
    "SELECT id, row_version FROM containers "
    "WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_FREE_IDS = text(f"{_LOCK_IDS.text} SKIP LOCKED")
_LOCK_FREE = text("""
SELECT c.id FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE c.uid = ANY(CAST(:uids AS uuid[])) AND n.cluster_name = :cluster_name
ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
""")

_WRITE = text(
    "SELECT write_observed(CAST(:ids AS bigint[]), CAST(CAST(:rows AS text) AS jsonb), "
    "CAST(CAST(:history AS text) AS jsonb))"
)

# One hour, for which the cluster stores its events.
_WARNINGS = text("""
INSERT INTO container_status_history
    (container_id, namespace_id, previous_status, current_status, reason, message, triggered_by)
SELECT r.container_id, r.namespace_id, r.status, r.status, r.reason, r.message, 'kubernetes'
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    container_id bigint, namespace_id bigint, status text, reason text, message text, look_up boolean)
WHERE NOT r.look_up OR NOT EXISTS (
    SELECT FROM container_status_history AS h
    WHERE h.container_id = r.container_id AND h.reason = r.reason AND h.changed_at > now() - interval '1 hour')
""")

_PODS_GONE = text("""
DELETE FROM container_pods AS p USING unnest(CAST(:container_ids AS bigint[])) AS w(container_id)
WHERE p.container_id = w.container_id AND NOT EXISTS (
    SELECT FROM unnest(CAST(:pod_owners AS bigint[]), CAST(:pod_uids AS text[])) AS s(container_id, uid)
    WHERE s.container_id = p.container_id AND s.uid = p.uid)
""")

_PODS_SEEN = text("""
INSERT INTO container_pods AS p
    (container_id, namespace_id, pod_name, uid, phase, reason, message, ready, pod_ip, host_ip, node_name,
     restart_count, image, image_id, started_at, finished_at, deleting, revision, created_at, programs)
SELECT r.container_id, r.namespace_id, r.pod_name, r.uid, NULLIF(r.phase, ''), NULLIF(r.reason, ''),
    NULLIF(r.message, ''), r.ready, NULLIF(r.pod_ip, ''), NULLIF(r.host_ip, ''), NULLIF(r.node_name, ''),
    r.restart_count, NULLIF(r.image, ''), NULLIF(r.image_id, ''), r.started_at, r.finished_at, r.deleting,
    NULLIF(r.revision, ''), r.created_at, r.programs
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    container_id bigint, namespace_id bigint, pod_name text, uid text, phase text, reason text, message text,
    ready boolean, pod_ip text, host_ip text, node_name text, restart_count int, image text, image_id text,
    started_at timestamptz, finished_at timestamptz, deleting boolean, revision text,
    created_at timestamptz, programs jsonb)
ON CONFLICT (container_id, uid) DO UPDATE
SET phase = EXCLUDED.phase, reason = EXCLUDED.reason, message = EXCLUDED.message, ready = EXCLUDED.ready,
    pod_ip = EXCLUDED.pod_ip, host_ip = EXCLUDED.host_ip, node_name = EXCLUDED.node_name,
    restart_count = EXCLUDED.restart_count, image = EXCLUDED.image, image_id = EXCLUDED.image_id,
    started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at, deleting = EXCLUDED.deleting,
    revision = EXCLUDED.revision, created_at = EXCLUDED.created_at, programs = EXCLUDED.programs, updated_at = now()
""")

_DELETE = text("DELETE FROM containers WHERE id = :id")

_OF_CLUSTER = text("""
SELECT c.id, c.uid::text AS uid FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE n.cluster_name = :cluster_name
""")

_KNOWN = text("SELECT uid::text AS uid FROM containers WHERE uid = ANY(CAST(:uids AS uuid[]))")
_KNOWN_THERE = text("""
SELECT c.uid::text AS uid FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE c.uid = ANY(CAST(:uids AS uuid[])) AND n.cluster_name = :cluster_name
""")

# Containers that are being deleted have work of their own. The statement reads all containers once a minute: about
# 1/30 s for ten thousand on a busy machine. An index for it would cost more: each change of a condition would then
# write all indexes.
_AUTOSCALED = text("""
SELECT c.id, n.kubernetes_name AS namespace, COALESCE(c.spec -> 'workload' ->> 'type', 'deployment') AS type,
    c.kubernetes_name AS name
FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE n.cluster_name = :cluster_name AND c.deletion_requested_at IS NULL
  AND c.conditions @> '[{"type": "Autoscaled", "status": "True"}]'
""")

_ACCOUNTS = text("""
SELECT DISTINCT n.kubernetes_name, c.spec ->> 'service_account' AS account
FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
WHERE n.cluster_name = :cluster_name AND c.spec ->> 'service_account' IS NOT NULL
""")

_ACCOUNT_USED = text("""
SELECT 1 FROM containers
WHERE namespace_id = :namespace_id AND id <> :id AND spec ->> 'service_account' = :name LIMIT 1
""")


async def find_placed(transaction: ReadTransaction, ids: Sequence[int]) -> dict[int, PlacedContainer]:
    """Returns containers by id; deleted ones are left out."""
    return {int(each.container.id): each for each in await repository.get_many_placed(transaction, ids)}


async def lock_found(
    transaction: Transaction, found: Mapping[int, Container], *, wait: bool
) -> dict[int, Container]:
    """Locks containers that were loaded before, and returns their present state by id.

    Deleted containers are left out, and with `wait=False` also locked ones. Most have not changed since they were
    loaded, and are not read again; but a container's view of its volumes may change without its own row.
    """
    statement = _LOCK_IDS if wait else _LOCK_FREE_IDS
    locked = (await transaction.connection.execute(statement, {"ids": list(found)})).all()
    same = {
        row.id: found[row.id]
        for row in locked
        if found[row.id].row_version == row.row_version and not found[row.id].volumes
    }
    changed = [row.id for row in locked if row.id not in same]
    read = await repository.get_many(transaction, changed) if changed else []
    return same | {int(each.id): each for each in read}


async def lock_free_uids(transaction: Transaction, cluster_name: str, uids: Sequence[str]) -> list[Container]:
    """Locks and returns those containers of a cluster that no other transaction locked.

    Objects may carry the uid of a container of another cluster: after a restore of a backup into a second cluster, or
    if one cluster is registered twice. Their state is not the container's.
    """
    keys = {"uids": list(uids), "cluster_name": cluster_name}
    return await _loaded(transaction, await transaction.connection.execute(_LOCK_FREE, keys))


async def _loaded(transaction: Transaction, rows: Result) -> list[Container]:
    ids = [row.id for row in rows]
    return await repository.get_many(transaction, ids) if ids else []


async def write(transaction: Transaction, changes: Iterable[Change], trigger: Trigger) -> list[Container]:
    """Writes differences, with history and events. Returns the changed containers in their new state."""
    changes = list(changes)
    significant = [change for change in changes if change.significant]
    after = [written(change, transaction.now) for change in significant]
    if significant:
        parameters = {
            "ids": [int(change.container.id) for change in significant],
            "rows": as_json(map(observed_row, significant)),
            "history": as_json(history_rows(significant, trigger)),
        }
        await transaction.connection.execute(_WRITE, parameters)
    if warnings := [each for change in changes for each in _warning_rows(change)]:
        await transaction.connection.execute(_WARNINGS, {"rows": as_json(warnings)})
    await _write_pods(transaction, [change for change in changes if change.pods is not None])
    for change, container in zip(significant, after, strict=True):
        transaction.emit(event(container, "modified", before=change.container))
    return after


async def delete(transaction: Transaction, container: Container) -> None:
    """Removes a container's row permanently, with its tombstone event."""
    runs = await repository.runs_by_id(transaction, [container])
    await transaction.connection.execute(_DELETE, {"id": container.id})
    for id_, (_, run) in runs.items():
        transaction.emit(repository.run_event(container, run, id_, "deleted", run))
    transaction.emit(event(container, "deleted", before=container))
    # Another transaction removes the rows of its Services.
    transaction.follow_up |= bool(container.ports)


async def of_cluster(transaction: ReadTransaction, cluster_name: str) -> dict[str, int]:
    """Returns uid → id of every container on a cluster."""
    rows = await transaction.connection.execute(_OF_CLUSTER, {"cluster_name": cluster_name})
    return {row.uid: row.id for row in rows}


async def known_uids(transaction: ReadTransaction, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are containers of any cluster."""
    rows = await transaction.connection.execute(_KNOWN, {"uids": list(uids)})
    return {row.uid for row in rows}


async def uids_there(transaction: ReadTransaction, cluster_name: str, uids: Sequence[str]) -> set[str]:
    """Returns those of `uids` (which must be UUIDs) that are containers of this cluster."""
    keys = {"uids": list(uids), "cluster_name": cluster_name}
    return {row.uid for row in await transaction.connection.execute(_KNOWN_THERE, keys)}


async def autoscaled(transaction: ReadTransaction, cluster_name: str) -> dict[int, tuple[str, str, str]]:
    """Returns id → Kubernetes namespace, kind and name of the workloads of a cluster's autoscaled containers."""
    rows = await transaction.connection.execute(_AUTOSCALED, {"cluster_name": cluster_name})
    return {row.id: (row.namespace, WORKLOADS[row.type].kind, row.name) for row in rows}


async def service_accounts(transaction: ReadTransaction, cluster_name: str) -> set[tuple[str, str]]:
    """Returns Kubernetes namespace and name of every service account that containers of a cluster name."""
    rows = await transaction.connection.execute(_ACCOUNTS, {"cluster_name": cluster_name})
    return {(row.kubernetes_name, row.account) for row in rows}


async def service_account_used_by_others(transaction: ReadTransaction, container: Container) -> bool:
    """Returns whether another container of the namespace names the same service account."""
    parameters = {
        "namespace_id": container.namespace_id,
        "id": container.id,
        "name": container.spec.service_account,
    }
    return (await transaction.connection.execute(_ACCOUNT_USED, parameters)).first() is not None


async def _write_pods(transaction: Transaction, changes: list[Change]) -> None:
    if not changes:
        return
    # Keyed by uid: two pods with the same uid occur only if somebody tampers with the cluster.
    found = {
        (change.container.id, pod.uid): (change.container, pod)
        for change in changes
        for pod in change.pods or ()
    }
    owned = list(found.values())
    await transaction.connection.execute(
        _PODS_GONE,
        {
            "container_ids": [int(change.container.id) for change in changes],
            "pod_owners": [int(container.id) for container, _ in owned],
            "pod_uids": [pod.uid for _, pod in owned],
        },
    )
    if owned:
        rows = [_pod_row(container, pod) for container, pod in owned]
        await transaction.connection.execute(_PODS_SEEN, {"rows": as_json(rows)})


def written(change: Change, now: datetime) -> Container:
    """Returns the container as it will be once the change is written."""
    return msgspec.structs.replace(
        change.container,
        observed=change.observed,
        observed_generation=change.observed_generation,
        updated_at=now,
        row_version=change.container.row_version + 1,
    )


def _tells_more(change: Change) -> bool:
    """Returns whether the cluster now gives a new reason without a new status."""
    before, now = change.container.observed.reason, change.observed.reason
    if change.observed.status not in ("pending", "failed", "running") or now in ORDINARY_REASONS:
        return False
    # These two alternate with every attempt to pull.
    return now != before and not {now, before} <= PULL_REASONS


def observed_row(change: Change) -> dict[str, Any]:
    """Returns the observed columns by name."""
    observed = change.observed
    return {
        "id": change.container.id,
        "observed_generation": change.observed_generation,
        "observed_replicas": change.observed_replicas,
        **{name: getattr(observed, name) for name in observed.__struct_fields__},
        "conditions": msgspec.to_builtins(observed.conditions),
        "programs": msgspec.to_builtins(observed.programs),
    }


def history_rows(changes: Iterable[Change], trigger: Trigger) -> list[dict[str, Any]]:
    """Returns history lines for the changes with another status, or with a new reason worth a line."""
    return [
        _history_row(change, trigger)
        for change in changes
        if change.observed.status != change.container.observed.status or _tells_more(change)
    ]


def _history_row(change: Change, trigger: Trigger) -> dict[str, Any]:
    return {
        "container_id": change.container.id,
        "namespace_id": change.container.namespace_id,
        "previous_status": change.container.observed.status,
        "current_status": change.observed.status,
        "reason": change.observed.reason,
        "message": change.observed.message,
        "triggered_by": trigger,
    }


def _warning_rows(change: Change) -> list[dict[str, Any]]:
    return [
        {
            "container_id": change.container.id,
            "namespace_id": change.container.namespace_id,
            "status": change.observed.status,
            "reason": warning.reason,
            "message": warning.message,
            "look_up": change.look_up,
        }
        for warning in change.warnings
    ]


def _pod_row(container: Container, pod: PodObservation) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(pod),
        "container_id": container.id,
        "namespace_id": container.namespace_id,
        "pod_name": pod.name,
        "message": pod.message[:4096],
        "reason": pod.reason[:100],
        "revision": pod.revision[:253],
        "programs": msgspec.to_builtins(pod.programs),
    }


def event(container: Container, kind: Literal["modified", "deleted"], *, before: Container) -> Event:
    """Returns the event of a change."""
    return Event(
        resource_type="container",
        resource_id=container.id,
        namespace_id=container.namespace_id,
        name=container.name,
        kind=kind,
        entity=container,
        labels=container.labels,
        status=container.observed.status,
        labels_before=before.labels,
        status_before=before.observed.status,
    )


def as_json(rows: Iterable[dict[str, Any]]) -> str:
    """Returns rows in the form that the statements read."""
    return orjson.dumps(list(rows)).decode()
