"""Claims, config maps and secrets that were on the cluster before the platform: which objects they took over.

An import makes rows of what the imported containers mount and read. By the object's uid the reconciler knows the one
that it may label as its own, and that a claim is given back rather than deleted.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE volumes ADD COLUMN taken_over varchar(64);
ALTER TABLE config_maps ADD COLUMN taken_over varchar(64);
ALTER TABLE secrets ADD COLUMN taken_over varchar(64);

COMMENT ON COLUMN volumes.taken_over IS 'uid of the claim that was there before us, on the cluster.';
COMMENT ON COLUMN config_maps.taken_over IS 'uid of the ConfigMap that was there before us, on the cluster.';
COMMENT ON COLUMN secrets.taken_over IS 'uid of the Secret that was there before us, on the cluster.';
""")


def downgrade() -> None:
    run("""
ALTER TABLE secrets DROP COLUMN taken_over;
ALTER TABLE config_maps DROP COLUMN taken_over;
ALTER TABLE volumes DROP COLUMN taken_over;
""")
