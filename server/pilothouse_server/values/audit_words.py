"""The words of the audit log: the values of a record's `action` and `resource_type`.

Users filter the log by these words, so the words must not change. If a method's options declare an unlisted word, the
server does not start. Add a new word here; it needs no migration.
"""

from __future__ import annotations

ACTIONS = frozenset({
    "apply", "attach", "authenticate", "check", "copy", "create", "delete", "deregister", "detach", "exec", "explain",
    "export", "get", "grant", "import", "list", "login", "logout", "logs", "migrate", "observe", "other", "pause",
    "port_forward", "purge", "query", "reconcile", "record", "refresh", "register", "reset", "restart", "resume",
    "reveal", "revoke", "rollback", "rotate", "run", "scale", "seal", "start", "stop", "stream", "update", "verify",
    "watch",
})  # fmt: skip
RESOURCE_TYPES = frozenset({
    "api_key", "application", "audit_log", "audit_sink", "cluster", "config", "config_map", "container", "database",
    "encryption_key", "event", "health", "image", "log", "metrics", "namespace", "object", "operation", "overview",
    "permission", "pod", "principal", "quota", "reflection", "resource", "revision", "role", "role_grant", "run",
    "second_factor", "secret", "service", "service_account", "session", "status_history", "unknown", "usage", "user",
    "volume",
})  # fmt: skip
