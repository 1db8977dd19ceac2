"""Runs of containers, as the observer writes them: the state of their Jobs, including deleted Jobs.

The Jobs of a CronJob carry no number. Each gets the next number when it is written for the first time, and keeps it
after its Job is deleted. A row stays at least as long as its Job, because the Job would otherwise get another number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import text

from pilothouse_server.containers import repository
from pilothouse_server.containers.job_status import REMOVED, REMOVED_MESSAGE, ContainerRun, run_end, runs_kept
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workloads import has_schedule
from pilothouse_server.reconcile.repository.container_status import as_json
from pilothouse_server.store.unit_of_work import Transaction

# The end of a run is written once. But a Job may end before its failed pod shows the exit code, which is added later.
_SEEN = text("""
INSERT INTO container_runs AS t
    (container_id, namespace_id, number, name, status, reason, message, exit_code, start_time, end_time)
SELECT r.container_id, r.namespace_id, r.number, r.name, r.status, NULLIF(r.reason, ''), NULLIF(r.message, ''),
    r.exit_code, r.start_time, r.end_time
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    container_id bigint, namespace_id bigint, number int, name text, status text, reason text, message text,
    exit_code int, start_time timestamptz, end_time timestamptz)
ON CONFLICT (container_id, number) DO UPDATE
SET status = EXCLUDED.status, reason = EXCLUDED.reason, message = EXCLUDED.message,
    exit_code = COALESCE(EXCLUDED.exit_code, t.exit_code), start_time = EXCLUDED.start_time,
    end_time = EXCLUDED.end_time
WHERE t.end_time IS NULL OR (t.exit_code IS NULL AND EXCLUDED.exit_code IS NOT NULL)
""")
_REMOVED = text("""
UPDATE container_runs AS t
SET status = 'failed', reason = :reason, message = :message, end_time = now()
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    container_id bigint, newest int, all_others boolean, there int[])
WHERE t.container_id = r.container_id AND t.end_time IS NULL AND (t.number < r.newest OR r.all_others)
    AND t.number <> ALL (r.there)
""")
_PRUNE = text("""
DELETE FROM container_runs AS t
USING jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    container_id bigint, newest int, kept int, all_others boolean, there int[])
WHERE t.container_id = r.container_id AND t.number <= r.newest - r.kept AND t.number <> ALL (r.there)
""")
# Runs count against the quota only while they run.
_RELEASE = text("""
UPDATE containers SET quota_cpu_millicores = 0, quota_memory_bytes = 0
WHERE id = ANY(CAST(:ids AS bigint[])) AND (quota_cpu_millicores > 0 OR quota_memory_bytes > 0)
""")


async def write(transaction: Transaction, seen: Sequence[tuple[Container, Sequence[ContainerRun]]]) -> None:
    """Writes the runs of containers whose Jobs are on the cluster.

    An earlier run whose Job was deleted before its end counts as failed. Runs beyond the number to keep are removed.
    """
    if not seen:
        return
    before = await repository.runs_by_id(transaction, [container for container, _ in seen])
    newest = {int(container.id): container.spec.run for container, _ in seen}
    seen, of_schedules = _numbered(seen, before.values())
    newest |= of_schedules
    if rows := [_row(container, run) for container, runs in seen for run in runs]:
        await transaction.connection.execute(_SEEN, {"rows": as_json(rows)})
    there = as_json(
        {
            "container_id": container.id,
            "newest": newest[int(container.id)],
            "kept": runs_kept(container),
            "all_others": has_schedule(container) or run_end(container) is not None,
            "there": [run.number for run in runs],
        }
        for container, runs in seen
    )
    keys = {"rows": there, "reason": REMOVED, "message": REMOVED_MESSAGE}
    await transaction.connection.execute(_REMOVED, keys)
    await transaction.connection.execute(_PRUNE, {"rows": there})
    after = await repository.runs_by_id(transaction, [container for container, _ in seen])
    for id_, (container, run) in after.items():
        if id_ not in before:
            transaction.emit(repository.run_event(container, run, id_, "added"))
        elif run != before[id_][1]:
            transaction.emit(repository.run_event(container, run, id_, "modified", before[id_][1]))
    for id_, (container, run) in before.items():
        if id_ not in after:
            transaction.emit(repository.run_event(container, run, id_, "deleted", run))


def _numbered(
    seen: Sequence[tuple[Container, Sequence[ContainerRun]]],
    before: Iterable[tuple[Container, ContainerRun]],
) -> tuple[Sequence[tuple[Container, Sequence[ContainerRun]]], dict[int, int]]:
    """Returns `seen` with numbers for runs of CronJobs, and the newest number by container."""
    scheduled = {int(container.id): dict[str, int]() for container, _ in seen if has_schedule(container)}
    for container, run in before:
        if int(container.id) in scheduled:
            scheduled[int(container.id)][run.name] = run.number
    numbered = []
    for container, runs in seen:
        if (known := scheduled.get(int(container.id))) is not None:
            for run in runs:
                if run.name not in known:
                    known[run.name] = max(known.values(), default=0) + 1
            runs = [msgspec.structs.replace(run, number=known[run.name]) for run in runs]
        numbered.append((container, runs))
    return numbered, {id_: max(known.values(), default=0) for id_, known in scheduled.items()}


async def release_quota(transaction: Transaction, ended: Iterable[Container]) -> None:
    """Releases the quota of containers whose newest run has ended."""
    if ids := [int(each.id) for each in ended]:
        await transaction.connection.execute(_RELEASE, {"ids": ids})


def _row(container: Container, run: ContainerRun) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(run),
        "container_id": container.id,
        "namespace_id": container.namespace_id,
    }
