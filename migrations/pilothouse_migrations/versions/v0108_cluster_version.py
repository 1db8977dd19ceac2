"""Read the version of the cluster of a namespace.

Extra fields of its containers are compared with the schema of that version.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0108"
down_revision = "0107"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ("version_of_cluster",)
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
