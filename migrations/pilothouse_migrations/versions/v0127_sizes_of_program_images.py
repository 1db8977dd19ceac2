"""The summary of a namespace includes the sizes of the images of sidecars and init containers."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0127"
down_revision = "0126"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ()
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()

_OF_MAIN = "SELECT DISTINCT namespace_id, image_id FROM containers"
_OF_ALL = (
    "SELECT namespace_id, image_id FROM containers UNION SELECT namespace_id, image_id FROM program_images"
)


def _summary(images: str) -> str:
    return f"""
DROP MATERIALIZED VIEW container_summary;
CREATE MATERIALIZED VIEW container_summary AS
SELECT
    n.id AS namespace_id,
    n.name AS namespace_name,
    coalesce(c.total_containers, 0) AS total_containers,
    coalesce(c.running_containers, 0) AS running_containers,
    coalesce(c.stopped_containers, 0) AS stopped_containers,
    coalesce(c.failed_containers, 0) AS failed_containers,
    coalesce(i.total_size_bytes, 0) AS total_size_bytes
FROM namespaces AS n
LEFT JOIN (
    SELECT namespace_id,
           count(*) AS total_containers,
           count(*) FILTER (WHERE status = 'running') AS running_containers,
           count(*) FILTER (WHERE status = 'stopped') AS stopped_containers,
           count(*) FILTER (WHERE status = 'failed') AS failed_containers
    FROM containers GROUP BY namespace_id
) AS c ON c.namespace_id = n.id
LEFT JOIN (
    SELECT used.namespace_id, sum(ci.size_bytes) AS total_size_bytes
    FROM ({images}) AS used
    JOIN container_images AS ci ON ci.id = used.image_id
    GROUP BY used.namespace_id
) AS i ON i.namespace_id = n.id
WHERE n.deleted_at IS NULL;
CREATE UNIQUE INDEX uq_container_summary_namespace_id ON container_summary (namespace_id);
COMMENT ON MATERIALIZED VIEW container_summary IS
    'Containers and image sizes per namespace, refreshed every hour.';
GRANT SELECT ON container_summary TO pilothouse_system;
"""


def upgrade() -> None:
    statements.run(_summary(_OF_ALL))


def downgrade() -> None:
    statements.run(_summary(_OF_MAIN))
