"""Keep room in pending rows: one that just fits a page cannot be written.

PostgreSQL takes values out of a row until it is as small as its target. It counts small arrays as packed then, but
those of a PL/pgSQL function are written without packing once the plan of its INSERT is cached. A row that was a few
bytes below the page's 8160 by that count was too big, and the mutation failed.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0112"
down_revision = "0111"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that get another text, are new or go. Their former texts are in 0112_rows_that_just_fit/before/.
replaces = ()
# Tables that are altered, or whose indexes are dropped: they are locked before anything else.
locks = ("pending_changes",)


def upgrade() -> None:
    statements.run("""
ALTER TABLE pending_changes SET (toast_tuple_target = 8000);
""")


def downgrade() -> None:
    statements.run("""
ALTER TABLE pending_changes SET (toast_tuple_target = 8160);
""")
