"""References to config maps and secrets that only the cluster has, and the names that a namespace allows."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0107"
down_revision = "0106"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops. Former texts are in 0107_external_sources/before/.
replaces = ("allowed_external_sources", "volume_definition", "write_container_parts")
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("namespaces", "environment_variables")


def upgrade() -> None:
    statements.run("""
        ALTER TABLE namespaces ADD COLUMN external_sources text[] NOT NULL DEFAULT '{}';
        COMMENT ON COLUMN namespaces.external_sources IS
            'Patterns for names of config maps and secrets of the cluster that may be named; empty: none.';
        ALTER TABLE environment_variables ADD COLUMN external boolean NOT NULL DEFAULT false;
        COMMENT ON COLUMN environment_variables.external IS 'Whether only the cluster has the source.';
    """)
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
    statements.run("""
        ALTER TABLE environment_variables DROP COLUMN external;
        ALTER TABLE namespaces DROP COLUMN external_sources;
    """)
