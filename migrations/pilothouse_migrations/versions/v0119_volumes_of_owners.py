"""Indexes of the volumes that containers own, and of those whose container is deleted.

Every server searches for the latter.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0119"
down_revision = "0118"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
transactional = False


def upgrade() -> None:
    statements.build_index("idx_volumes_owner", "volumes", "(owner_id, namespace_id)")
    statements.build_index(
        "idx_volumes_without_owner", "volumes", "(id) WHERE owner IS NOT NULL AND owner_id IS NULL"
    )


def downgrade() -> None:
    statements.drop_index("idx_volumes_without_owner")
    statements.drop_index("idx_volumes_owner")
