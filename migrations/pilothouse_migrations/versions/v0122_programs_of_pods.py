"""The programs of each pod and its time of creation, which ListPods shows.

Servers of 0.2 leave both empty.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0122"
down_revision = "0121"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ()
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("container_pods",)


def upgrade() -> None:
    statements.run("""
ALTER TABLE container_pods ADD COLUMN created_at timestamp with time zone, ADD COLUMN programs jsonb;
COMMENT ON COLUMN container_pods.created_at IS 'When the cluster made the pod.';
COMMENT ON COLUMN container_pods.programs IS 'The state of each of its programs.';
""")


def downgrade() -> None:
    statements.run("""
ALTER TABLE container_pods DROP COLUMN programs, DROP COLUMN created_at;
""")
