"""The access mode ReadWriteOncePod of volumes."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0130"
down_revision = "0129"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ()
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("volumes",)


def _check(modes: str) -> str:
    return f"""
        ALTER TABLE volumes
            DROP CONSTRAINT ck_volumes_access_mode,
            ADD CONSTRAINT ck_volumes_access_mode CHECK (access_mode IN ({modes})) NOT VALID;
    """


def upgrade() -> None:
    statements.run(_check("'ReadWriteOnce', 'ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOncePod'"))


def downgrade() -> None:
    # The claims on the clusters keep their mode.
    statements.run("""
        UPDATE volumes SET access_mode = 'ReadWriteOnce' WHERE access_mode = 'ReadWriteOncePod';
    """)
    statements.run(_check("'ReadWriteOnce', 'ReadOnlyMany', 'ReadWriteMany'"))
    statements.run("""
        ALTER TABLE volumes VALIDATE CONSTRAINT ck_volumes_access_mode;
    """)
