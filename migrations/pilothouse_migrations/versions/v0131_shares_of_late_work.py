"""Work that is committed during a lease is limited to its namespace's share."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0131"
down_revision = "0130"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops. Former texts are in 0131_shares_of_late_work/before/.
replaces = ("lease_work",)
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
