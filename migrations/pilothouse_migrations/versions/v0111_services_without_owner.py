"""An index of the Services whose container is deleted.

Every server searches for them every few seconds.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0111"
down_revision = "0110"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
transactional = False


def upgrade() -> None:
    statements.build_index(
        "idx_services_without_owner", "services", "(id) WHERE owner IS NOT NULL AND owner_id IS NULL"
    )


def downgrade() -> None:
    statements.drop_index("idx_services_without_owner")
