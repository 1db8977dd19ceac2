"""The words of the log are the server's: `action` and `resource_type` are no longer listed in SQL.

The lists are those of the method options, which the server checks at start (`values/audit_words.py`), so that a new
action needs no migration and a server of the next release can write to a database of this one.

On the way down the lists of 0008 hold again for what is written. Records with words that came since stay: the log is
not altered, so then the constraint is left unvalidated.
"""

from __future__ import annotations

from pilothouse_migrations.statements import run

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ACTIONS = (
    "create", "start", "stop", "pause", "restart", "delete", "update",
    "resume", "get", "list", "watch", "query", "import", "exec", "logs", "stream", "attach", "detach",
    "login", "logout", "refresh", "authenticate", "grant", "revoke", "reset", "reveal", "rotate", "check", "explain",
    "register", "deregister", "record", "verify", "export", "seal", "reconcile", "observe", "migrate", "other",
)  # fmt: skip
RESOURCE_TYPES = (
    "container", "namespace", "volume", "config_map", "secret",
    "user", "role", "role_grant", "api_key", "session", "permission", "principal", "cluster", "image", "pod", "log",
    "service_account", "status_history", "config", "encryption_key", "operation", "audit_log", "usage", "metrics",
    "quota", "database", "health", "reflection", "unknown",
)  # fmt: skip


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def upgrade() -> None:
    run("""
ALTER TABLE operation_logs DROP CONSTRAINT ck_operation_logs_action;
ALTER TABLE operation_logs DROP CONSTRAINT ck_operation_logs_resource_type;
""")


def downgrade() -> None:
    for column, words in (("action", ACTIONS), ("resource_type", RESOURCE_TYPES)):
        run(f"""
ALTER TABLE operation_logs ADD CONSTRAINT ck_operation_logs_{column}
    CHECK ({column} IN ({_quoted(words)})) NOT VALID;
DO $$ BEGIN
    ALTER TABLE operation_logs VALIDATE CONSTRAINT ck_operation_logs_{column};
EXCEPTION WHEN check_violation THEN NULL;
END $$;
""")
