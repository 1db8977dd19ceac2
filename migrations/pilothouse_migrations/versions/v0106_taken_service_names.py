"""Compare the names of a container's Services with those of standalone Services.

Only one container at a time can take a name.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0106"
down_revision = "0105"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops. Former texts are in 0106_taken_service_names/before/.
replaces = ("admit_container", "lock_facts")
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
