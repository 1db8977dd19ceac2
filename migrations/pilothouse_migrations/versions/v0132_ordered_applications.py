"""Phases and waves of applications: the step of each member.

The cluster work of a member is held until its step.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0132"
down_revision = "0131"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ()
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("applications", "application_members", "reconcile_work")


def upgrade() -> None:
    # Existing applications count as installed.
    statements.run("""
ALTER TABLE applications ADD COLUMN step integer NOT NULL DEFAULT 0;
ALTER TABLE applications ADD COLUMN installed boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN applications.step IS 'Step that the newest revision has come to; members of later ones wait.';
COMMENT ON COLUMN applications.installed IS
    'Whether a revision has come to its phase Sync, so that hooks of an upgrade run and those of an install do not.';

ALTER TABLE application_members ADD COLUMN phase varchar(20) NOT NULL DEFAULT 'sync';
ALTER TABLE application_members ADD COLUMN wave integer NOT NULL DEFAULT 0;
ALTER TABLE application_members ADD COLUMN step integer NOT NULL DEFAULT 0;
ALTER TABLE application_members ADD COLUMN hook boolean NOT NULL DEFAULT false;
ALTER TABLE application_members ADD COLUMN pruned boolean NOT NULL DEFAULT false;
ALTER TABLE application_members ADD COLUMN delete_on jsonb NOT NULL DEFAULT '[]';
ALTER TABLE application_members ADD COLUMN outcome varchar(20);
ALTER TABLE application_members ADD COLUMN outcome_reason varchar(100);
ALTER TABLE application_members ADD COLUMN outcome_message text;
COMMENT ON COLUMN application_members.phase IS 'Phase in which it is applied.';
COMMENT ON COLUMN application_members.wave IS 'Wave within its phase.';
COMMENT ON COLUMN application_members.step IS 'Place of its phase and wave among those of the revision, from 0.';
COMMENT ON COLUMN application_members.hook IS 'Whether it is a hook.';
COMMENT ON COLUMN application_members.pruned IS 'Whether it is deleted at its step, because no document names it.';
COMMENT ON COLUMN application_members.delete_on IS 'Outcomes of a hook after which it is deleted.';
COMMENT ON COLUMN application_members.outcome IS
    'How a hook ended: succeeded, failed (and deleted for that), or skipped; null: its object shows it.';
COMMENT ON COLUMN application_members.outcome_reason IS 'Reason of a failed hook, a word.';
COMMENT ON COLUMN application_members.outcome_message IS 'Reason of a failed hook, in words.';

ALTER TABLE reconcile_work ADD COLUMN held boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN reconcile_work.held IS
    'Whether the cluster is left as it is until the step of its application; a deletion does not wait.';
""")


def downgrade() -> None:
    # Earlier servers apply everything immediately.
    statements.run("""
UPDATE reconcile_work SET due_at = now() WHERE held;
ALTER TABLE reconcile_work DROP COLUMN held;
ALTER TABLE application_members
    DROP COLUMN phase, DROP COLUMN wave, DROP COLUMN step, DROP COLUMN hook, DROP COLUMN pruned,
    DROP COLUMN delete_on, DROP COLUMN outcome, DROP COLUMN outcome_reason, DROP COLUMN outcome_message;
ALTER TABLE applications DROP COLUMN step, DROP COLUMN installed;
""")
