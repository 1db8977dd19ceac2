"""Hosts that namespaces may name, and the kinds and gateways that clusters allow."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0116"
down_revision = "0115"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ("hosts_overlap", "taken_hosts", "check_allowed_hosts")
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("namespaces", "clusters")


def upgrade() -> None:
    statements.run("""
        ALTER TABLE namespaces
            ADD COLUMN allowed_hosts text[] NOT NULL DEFAULT '{}',
            ADD COLUMN network_policies varchar(20) NOT NULL DEFAULT 'open';
        COMMENT ON COLUMN namespaces.allowed_hosts IS
            'Hosts that objects may name, as patterns in normal form; empty: none.';
        COMMENT ON COLUMN namespaces.network_policies IS
            'Whether everybody may change NetworkPolicies (open), or only privileged callers (protected).';
        ALTER TABLE clusters
            ADD COLUMN object_kinds jsonb NOT NULL DEFAULT '[]',
            ADD COLUMN shared_gateways text[] NOT NULL DEFAULT '{}',
            ADD COLUMN forbid_blocking_budgets boolean NOT NULL DEFAULT false;
        COMMENT ON COLUMN clusters.object_kinds IS 'Custom resources that its namespaces may hold.';
        COMMENT ON COLUMN clusters.shared_gateways IS
            'Gateways that routes of all namespaces may name, as Kubernetes namespace and name.';
        COMMENT ON COLUMN clusters.forbid_blocking_budgets IS
            'Whether budgets that block every drain of a node are refused.';
    """)
    statements.replace_functions(revision)
    statements.run("""
        CREATE TRIGGER check_allowed_hosts
            BEFORE INSERT OR UPDATE OF allowed_hosts ON namespaces
            FOR EACH ROW WHEN (NEW.allowed_hosts <> '{}')
            EXECUTE FUNCTION check_allowed_hosts();
    """)


def downgrade() -> None:
    statements.run("DROP TRIGGER check_allowed_hosts ON namespaces;")
    statements.restore_functions(revision)
    statements.run("""
        ALTER TABLE clusters
            DROP COLUMN object_kinds, DROP COLUMN shared_gateways, DROP COLUMN forbid_blocking_budgets;
        ALTER TABLE namespaces DROP COLUMN allowed_hosts, DROP COLUMN network_policies;
    """)
