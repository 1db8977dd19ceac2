"""What a claim was bound to: so that a claim that somebody deletes is told as lost, not made anew and empty.

The class is the one that the claim has on its cluster, where the default is chosen.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE volumes ADD COLUMN claim_uid varchar(64);
ALTER TABLE volumes ADD COLUMN persistent_volume varchar(253);
ALTER TABLE volumes ADD COLUMN claim_storage_class varchar(253);

COMMENT ON COLUMN volumes.claim_uid IS 'uid of the claim as it was last seen on the cluster.';
COMMENT ON COLUMN volumes.persistent_volume IS 'The PersistentVolume that the claim was last seen bound to.';
COMMENT ON COLUMN volumes.claim_storage_class IS 'The storage class of the claim as it was last seen on the cluster.';
""")


def downgrade() -> None:
    run("""
ALTER TABLE volumes DROP COLUMN claim_storage_class;
ALTER TABLE volumes DROP COLUMN persistent_volume;
ALTER TABLE volumes DROP COLUMN claim_uid;
""")
