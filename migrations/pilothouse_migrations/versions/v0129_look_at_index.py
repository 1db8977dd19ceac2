"""The index of applications whose status may change with time only."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0129"
down_revision = "0128"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# It runs outside a transaction, so that the index is built without blocking writers.
transactional = False


def upgrade() -> None:
    statements.build_index("idx_applications_look_at", "applications", "(look_at) WHERE look_at IS NOT NULL")


def downgrade() -> None:
    statements.drop_index("idx_applications_look_at")
