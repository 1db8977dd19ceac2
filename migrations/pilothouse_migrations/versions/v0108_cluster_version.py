"""Read the version of the cluster of a namespace: extra fields of its containers are compared with that schema."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0108"
down_revision = "0107"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that get another text, are new or go. Their former texts are in 0108_cluster_version/before/.
replaces = ("version_of_cluster",)
# Tables that are altered, or whose indexes are dropped: they are locked before anything else.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
