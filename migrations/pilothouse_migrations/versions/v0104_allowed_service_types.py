"""Read the types of Services that a namespace allows, for the ports of its containers."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0104"
down_revision = "0103"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ("allowed_service_types",)
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
