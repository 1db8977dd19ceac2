"""Indexes for lists over all namespaces: a page is read from one, not sorted out of the whole table.

A list is ordered by a column and, where that is equal, by the id. So each order has an index over both, with the
namespace beside them: what a caller does not reach is then passed over in the index.

`idx_containers_status` and `idx_containers_created_at` are those of the seed, and serve what they did; they are made
anew with the id behind their column. Each order of containers is answered so; volumes, config maps and secrets, of
which there are fewer, have one for their names.

An index made CONCURRENTLY cannot be a part of a migration, which is one transaction, and would wait for servers that
wait for this migration. These hold up writers while they are made: with 100,000 containers half a second.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Readers are locked out from the first DROP INDEX to the commit, so that comes last.
    run("""
CREATE INDEX idx_containers_name ON containers (name, id) INCLUDE (namespace_id);
CREATE INDEX idx_containers_created_at_id ON containers (created_at, id) INCLUDE (namespace_id);
CREATE INDEX idx_containers_status_id ON containers (status, id) INCLUDE (namespace_id);
CREATE INDEX idx_volumes_name ON volumes (name, id) INCLUDE (namespace_id);
CREATE INDEX idx_config_maps_name ON config_maps (name, id) INCLUDE (namespace_id);
CREATE INDEX idx_secrets_name ON secrets (name, id) INCLUDE (namespace_id);
DROP INDEX idx_containers_created_at;
ALTER INDEX idx_containers_created_at_id RENAME TO idx_containers_created_at;
DROP INDEX idx_containers_status;
ALTER INDEX idx_containers_status_id RENAME TO idx_containers_status;
""")


def downgrade() -> None:
    run("""
CREATE INDEX idx_containers_created_at_alone ON containers (created_at);
CREATE INDEX idx_containers_status_alone ON containers (status);
DROP INDEX idx_containers_created_at;
ALTER INDEX idx_containers_created_at_alone RENAME TO idx_containers_created_at;
DROP INDEX idx_containers_status;
ALTER INDEX idx_containers_status_alone RENAME TO idx_containers_status;
DROP INDEX idx_secrets_name;
DROP INDEX idx_config_maps_name;
DROP INDEX idx_volumes_name;
DROP INDEX idx_containers_name;
""")
