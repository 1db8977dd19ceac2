"""Guard rails above those who hold a namespace: levels of Pod Security, namespaces that are somebody's, `config.use`.

Of each namespace the level is kept that it is given where its labels name none, and the one that was seen. Namespaces
that are there are given none: they keep what they have. What that is, is seen by the next server that begins to watch
their cluster.

Each caller is loaded with the names of the namespaces whose Kubernetes namespace is somebody's, found by an index of
these few alone, because nothing is done in them.

Who gives a container a config map or a secret needs a permission of its own, `config.use`. Roles of callers' own that
let somebody decide what containers run get it, so that nobody loses what they could do. Shipped roles are brought up to
date by each server's start. Down takes it away again: no server of the release before asks for it.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run("""
ALTER TABLE namespaces ADD COLUMN default_pod_security varchar(20) NOT NULL DEFAULT '';
ALTER TABLE namespaces ADD COLUMN pod_security_level varchar(20) NOT NULL DEFAULT '';

COMMENT ON COLUMN namespaces.default_pod_security IS
    'Level that its Kubernetes namespace is given where the labels name none; empty: none.';
COMMENT ON COLUMN namespaces.pod_security_level IS
    'Level that its Kubernetes namespace enforced when it was seen last; empty: it named none, or was not seen.';

CREATE INDEX idx_namespaces_foreign ON namespaces (name) WHERE deleted_at IS NULL AND (
    conditions @> '[{"type": "Applied", "status": "False", "reason": "NameTaken"}]'
    OR conditions @> '[{"type": "Applied", "status": "False", "reason": "LabelLost"}]');

UPDATE roles SET permissions = permissions || '["config.use"]'
WHERE NOT is_system
  AND permissions ?| ARRAY['container.*', 'container.create', 'container.update', 'container.import', 'storage.*',
      'storage.attach']
  AND NOT permissions ?| ARRAY['*', 'config.*', 'config.use'];
""")


def downgrade() -> None:
    run("""
UPDATE roles SET permissions = permissions - 'config.use' WHERE NOT is_system;
DROP INDEX idx_namespaces_foreign;
ALTER TABLE namespaces DROP COLUMN pod_security_level;
ALTER TABLE namespaces DROP COLUMN default_pod_security;
""")
