"""Leave space in pending rows: a row that just fits a page cannot be written.

PostgreSQL compresses values of a row, or moves them out, until the row is as small as its target. It counts small
arrays as packed then, but once the plan of a PL/pgSQL function's INSERT is cached, the function writes them without
packing. So a row that was a few bytes below the page's 8160 by that count was too large, and the mutation failed.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0112"
down_revision = "0111"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ()
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("pending_changes",)


def upgrade() -> None:
    statements.run("""
ALTER TABLE pending_changes SET (toast_tuple_target = 8000);
""")


def downgrade() -> None:
    statements.run("""
ALTER TABLE pending_changes SET (toast_tuple_target = 8160);
""")
