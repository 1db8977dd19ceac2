"""Who serves a `request_id` while no transaction of theirs is open: `request_claims`.

A mutation that works in one transaction holds an advisory lock while it serves its `request_id`. One that waits for a
cluster before it writes must not hold a transaction meanwhile, so it leaves a row: the operation that serves the id,
and the deadline of its call. A replay that comes before that time waits, or is told to try again; one that comes after
it takes the row over and is executed. That a request happens once does not rest on these rows but on the primary key of
`idempotency_keys`.

There is no foreign key to `users`: a row is worth nothing after a minute, and expired ones are removed.
"""

from __future__ import annotations

from pilothouse_migrations.statements import belongs_to_user, run

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
CREATE TABLE request_claims (
    user_id bigint NOT NULL,
    request_id uuid NOT NULL,
    owner uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_request_claims PRIMARY KEY (user_id, request_id)
);

COMMENT ON TABLE request_claims IS
    'Requests that are being served outside a transaction, until the deadline of the call that serves them.';
COMMENT ON COLUMN request_claims.owner IS 'The operation that serves the request.';

CREATE INDEX idx_request_claims_expires_at ON request_claims (expires_at);
""")
    belongs_to_user("request_claims")


def downgrade() -> None:
    run("""
DROP TABLE request_claims;
""")
