"""A change of a container does not lock its key.

So usage of the container can be stored during the change.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0135"
down_revision = "0134"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops. Former texts are in 0135_key_locks/before/.
replaces = ("admit_container_change",)
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ()


def upgrade() -> None:
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
