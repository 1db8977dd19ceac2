"""${message}"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    run("""
""")


def downgrade() -> None:
    run("""
""")
