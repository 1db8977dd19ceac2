"""Revisions are written in a third of the time: planned expressions for their fields, no window to trim them."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0125"
down_revision = "0124"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops. Former texts are in 0125_cheaper_revisions/before/.
replaces = ("write_revision", "note_revision")
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
