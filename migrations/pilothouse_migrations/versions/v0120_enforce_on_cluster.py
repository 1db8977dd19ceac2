"""Whether the cluster also enforces the cpu and memory of a namespace's quota."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0120"
down_revision = "0119"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ()
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("namespaces",)


def upgrade() -> None:
    statements.run("""
        ALTER TABLE namespaces ADD COLUMN enforce_on_cluster boolean NOT NULL DEFAULT false;
        COMMENT ON COLUMN namespaces.enforce_on_cluster IS
            'Whether the ResourceQuota on the cluster also limits cpu and memory.';
    """)


def downgrade() -> None:
    statements.run("ALTER TABLE namespaces DROP COLUMN enforce_on_cluster")
