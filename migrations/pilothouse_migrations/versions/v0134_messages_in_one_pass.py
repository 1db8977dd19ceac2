"""Events of a pending row are numbered with their messages in one pass."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0134"
down_revision = "0133"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops. Former texts are in 0134_messages_in_one_pass/before/.
replaces = ("number_pending",)
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
