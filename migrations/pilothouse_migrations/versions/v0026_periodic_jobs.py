"""How the runs of periodic work ended, for whoever looks at the state of the database; what counts as a failure.

`periodic_jobs` has a row for each job, written by the server that ran it: one that fails is seen from every server.

A watch ends when its client goes away, or when the time is over that its client gave it. `user_operation_stats` counted
each such end as an operation that failed.
"""

from __future__ import annotations

from pilothouse_migrations.statements import row_level_security, run

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_FAILED = "ol.status_code >= 400"
_NO_END_OF_A_WATCH = """ol.status_code >= 400 AND NOT (
        ol.request_method IS NOT DISTINCT FROM 'STREAM' AND (ol.error_code IS NOT DISTINCT FROM 'CANCELLED'
        OR (ol.action = 'watch' AND ol.error_code IS NOT DISTINCT FROM 'DEADLINE_EXCEEDED')))"""


def upgrade() -> None:
    run("""
CREATE TABLE periodic_jobs (
    name varchar(100) NOT NULL,
    failures bigint NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_failure_at timestamptz,
    last_failure varchar(100),
    last_success_at timestamptz,
    CONSTRAINT pk_periodic_jobs PRIMARY KEY (name),
    CONSTRAINT ck_periodic_jobs_failures CHECK (failures >= 0 AND (failures = 0) = (failing_since IS NULL))
);

COMMENT ON TABLE periodic_jobs IS 'How the runs of each periodic job ended, whichever server did them.';
COMMENT ON COLUMN periodic_jobs.failures IS 'In a row, until now.';
COMMENT ON COLUMN periodic_jobs.last_failure IS 'The reason of the last failure, a word.';
""")
    row_level_security("periodic_jobs")
    run("GRANT SELECT, INSERT, UPDATE ON periodic_jobs TO @system@;")
    _stats(_NO_END_OF_A_WATCH)


def _stats(failed: str) -> None:
    run(f"""
CREATE OR REPLACE VIEW user_operation_stats WITH (security_invoker = true) AS
SELECT
    u.id AS user_id,
    u.username,
    u.full_name,
    count(ol.id) AS total_operations,
    count(ol.id) FILTER (WHERE ol.status_code >= 200 AND ol.status_code < 300) AS successful_operations,
    count(ol.id) FILTER (WHERE {failed}) AS failed_operations,
    count(ol.id) FILTER (WHERE ol.action = 'create') AS create_operations,
    count(ol.id) FILTER (WHERE ol.action = 'start') AS start_operations,
    count(ol.id) FILTER (WHERE ol.action = 'stop') AS stop_operations,
    count(ol.id) FILTER (WHERE ol.action = 'delete') AS delete_operations,
    min(ol.started_at) AS first_operation_at,
    max(ol.started_at) AS last_operation_at,
    avg(ol.duration_ms) AS avg_duration_ms,
    count(ol.id) FILTER (WHERE ol.started_at >= now() - interval '30 days') AS operations_last_30_days
FROM users AS u
LEFT JOIN operation_logs AS ol ON ol.user_id = u.id
GROUP BY u.id, u.username, u.full_name;
""")


def downgrade() -> None:
    _stats(_FAILED)
    run("DROP TABLE periodic_jobs;")
