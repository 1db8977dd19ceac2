"""The audit log as a transparency log: one RFC 6962 tree over its records, and the heads of it that are sealed.

The tree's first leaf is the last value of the hash chain as it stands now: so all records until here are bound by it,
and verified along the chain as before. Each record after it is a leaf, whose data is its hash; the record `sequence` is
the leaf `sequence - chain_length`. The chain itself goes on, so that servers of the release before find what they read.

The tree is grown beside the sequencer, by whoever seals: it takes the hashes of the records in the order of the log
from where the tree ends, so a record that a server of the release before had numbered is a leaf like any other.

`audit_tiles` holds full tiles only, which are never written again; what is not full yet is the edge, in the one row of
`audit_tree`. Level 0 holds the leaves' data, 256 record hashes a tile, from which their leaf hashes follow; each hash
of the levels above is the root of a full tile below. Records may be dropped by retention, their hashes stay.

Retention keeps the records of a namespace that is held (`legal_hold`).

`audit_seals` has been empty in all releases so far. It holds the size, root, signed note and time of each head.
"""

from __future__ import annotations

from pilothouse_migrations.statements import row_level_security, run

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
DROP TABLE audit_seals;

CREATE TABLE audit_seals (
    size bigint NOT NULL,
    root bytea NOT NULL,
    note text NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_audit_seals PRIMARY KEY (size),
    CONSTRAINT ck_audit_seals_size CHECK (size > 0),
    CONSTRAINT ck_audit_seals_root CHECK (octet_length(root) = 32)
);

COMMENT ON TABLE audit_seals IS 'Heads of the tree over the audit log, as they were signed.';
COMMENT ON COLUMN audit_seals.size IS 'Leaves of the tree: the chain of the first releases, then a record each.';
COMMENT ON COLUMN audit_seals.root IS 'Root of the tree of that size, by RFC 6962.';
COMMENT ON COLUMN audit_seals.note IS 'The head as a signed note (C2SP tlog-checkpoint), with what witnesses signed.';

CREATE TABLE audit_tree (
    id smallint NOT NULL DEFAULT 1,
    log_id uuid NOT NULL DEFAULT gen_random_uuid(),
    origin varchar(200),
    history_id uuid NOT NULL,
    chain_length bigint NOT NULL,
    chain_hash bytea NOT NULL,
    size bigint NOT NULL DEFAULT 0,
    edge bytea[] NOT NULL DEFAULT '{}',
    CONSTRAINT pk_audit_tree PRIMARY KEY (id),
    CONSTRAINT ck_audit_tree_id CHECK (id = 1),
    CONSTRAINT ck_audit_tree_chain_length CHECK (chain_length >= 0),
    CONSTRAINT ck_audit_tree_chain_hash CHECK (octet_length(chain_hash) = 32),
    CONSTRAINT ck_audit_tree_size CHECK (size >= 0)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

COMMENT ON TABLE audit_tree IS 'One row: how far the tree over the audit log has grown. Its lock is held to grow it.';
COMMENT ON COLUMN audit_tree.origin IS 'Name of the log in its heads; set once.';
COMMENT ON COLUMN audit_tree.history_id IS 'History of the database of which heads are signed under this origin.';
COMMENT ON COLUMN audit_tree.chain_length IS 'Records that the first leaf binds, by the hash chain.';
COMMENT ON COLUMN audit_tree.chain_hash IS 'The last value of that chain: the data of the first leaf.';
COMMENT ON COLUMN audit_tree.edge IS 'The tiles that are not full yet, by level.';

INSERT INTO audit_tree (history_id, chain_length, chain_hash)
SELECT h.history_id, h.audit_sequence, h.audit_chain_hash FROM stream_head AS h WHERE h.id = 1;

CREATE TABLE audit_tiles (
    level smallint NOT NULL,
    position bigint NOT NULL,
    hashes bytea NOT NULL,
    CONSTRAINT pk_audit_tiles PRIMARY KEY (level, position),
    CONSTRAINT ck_audit_tiles_level CHECK (level BETWEEN 0 AND 7),
    CONSTRAINT ck_audit_tiles_position CHECK (position >= 0),
    CONSTRAINT ck_audit_tiles_hashes CHECK (octet_length(hashes) = 8192)
);

ALTER TABLE audit_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

COMMENT ON TABLE audit_tiles IS 'Full tiles of the tree over the audit log, 256 hashes each; written once.';
COMMENT ON COLUMN audit_tiles.level IS '0: hashes of records; above: roots of full tiles of the level below.';
""")
    run("""
ALTER TABLE namespaces ADD COLUMN legal_hold boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN namespaces.legal_hold IS 'Whether records of the audit log that are of it are kept from retention.';
""")
    for table in ("audit_seals", "audit_tree", "audit_tiles"):
        row_level_security(table)
        run(f"""
CREATE POLICY {table}_visible_policy ON {table} FOR SELECT TO @app@ USING (true);
GRANT SELECT ON {table} TO @app@, @system@;
""")
    run("""
GRANT INSERT, UPDATE (note) ON audit_seals TO @system@;
GRANT INSERT ON audit_tiles TO @system@;
GRANT UPDATE (origin, history_id, size, edge) ON audit_tree TO @system@;
""")


def downgrade() -> None:
    run("""
ALTER TABLE namespaces DROP COLUMN legal_hold;

DROP TABLE audit_tiles;
DROP TABLE audit_tree;
DROP TABLE audit_seals;

CREATE TABLE audit_seals (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    sequence bigint NOT NULL,
    chain_hash bytea NOT NULL,
    record_count bigint NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    signature bytea,
    CONSTRAINT pk_audit_seals PRIMARY KEY (id),
    CONSTRAINT uq_audit_seals_sequence UNIQUE (sequence),
    CONSTRAINT ck_audit_seals_chain_hash CHECK (octet_length(chain_hash) = 32)
);

COMMENT ON TABLE audit_seals IS 'Heads of the audit chain, sealed for export.';
""")
    row_level_security("audit_seals")
    run("""
CREATE POLICY audit_seals_visible_policy ON audit_seals FOR SELECT TO @app@ USING (true);
GRANT SELECT ON audit_seals TO @app@;
GRANT SELECT, INSERT ON audit_seals TO @system@;
""")
