"""How the runs of periodic work ended, whichever server did them: a row a job, in `periodic_jobs`."""

from __future__ import annotations

from sqlalchemy import text

from pilothouse_server.store.unit_of_work import Store

_NOTE = text("""
INSERT INTO periodic_jobs AS job (name, failures, failing_since, last_failure_at, last_failure, last_success_at)
SELECT :name, CASE WHEN failed THEN 1 ELSE 0 END, CASE WHEN failed THEN now() END, CASE WHEN failed THEN now() END,
       nullif(:failure, ''), CASE WHEN failed THEN NULL ELSE now() END
FROM (SELECT CAST(:failure AS text) <> '' AS failed) AS run
ON CONFLICT (name) DO UPDATE
SET failures = CASE WHEN EXCLUDED.failures = 0 THEN 0 ELSE job.failures + 1 END,
    failing_since = CASE WHEN EXCLUDED.failures = 0 THEN NULL ELSE coalesce(job.failing_since, now()) END,
    last_failure_at = coalesce(EXCLUDED.last_failure_at, job.last_failure_at),
    last_failure = coalesce(EXCLUDED.last_failure, job.last_failure),
    last_success_at = coalesce(EXCLUDED.last_success_at, job.last_success_at)
""")


async def note(store: Store, name: str, failure: str) -> None:
    """Notes how a run ended; `failure` is '' where it went well. Raises Unavailable."""
    async with store.system_write("periodic") as transaction:
        await transaction.connection.execute(_NOTE, {"name": name, "failure": failure[:100]})
