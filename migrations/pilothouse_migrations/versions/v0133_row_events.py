"""Events of users, grants, clusters and images, written by triggers.

So every change of a row commits with its event.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0133"
down_revision = "0132"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = (
    "put_row_event",
    "put_user_event",
    "put_grant_event",
    "put_cluster_event",
    "put_image_event",
    "put_image_use_event",
)
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("users", "user_roles", "clusters", "container_images", "containers", "program_images")


_TRIGGER = """
CREATE CONSTRAINT TRIGGER {name} AFTER {change} ON {table} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW {condition} EXECUTE FUNCTION {function}();"""
# The columns of users and clusters that the API shows, without those that store when a cluster last responded, which
# change every few seconds.
_USER = "username email full_name avatar_url status last_login_at totp_since resource_version updated_at deleted_at"
_CLUSTER = (
    "name api_server display_name labels status reason message version stale_since credentials_expires_at "
    "resource_version created_at deleted_at orphans_decided_in object_kinds shared_gateways forbid_blocking_budgets"
)
_TRIGGERS = (
    ("put_user_event", "users", "INSERT", "WHEN (NEW.kind = 'person')", "put_user_event"),
    ("put_grant_event", "user_roles", "INSERT OR DELETE", "", "put_grant_event"),
    ("put_cluster_event", "clusters", "INSERT", "", "put_cluster_event"),
    # A new image becomes visible once a container uses it, and that container has an event.
    ("put_image_event", "container_images", "DELETE", "", "put_image_event"),
    ("put_image_use_event", "program_images", "INSERT OR DELETE", "", "put_image_use_event"),
)
_CHANGED = (
    ("users", _USER, "AND NEW.kind = 'person' AND OLD.deleted_at IS NULL", "put_user_event"),
    ("user_roles", "expires_at assigned_at assigned_by source", "", "put_grant_event"),
    ("clusters", _CLUSTER, "AND (OLD.deleted_at IS NULL OR NEW.deleted_at IS NULL)", "put_cluster_event"),
    (
        "container_images",
        "repository name tag digest size_bytes architecture os status",
        "",
        "put_image_event",
    ),
    ("containers", "image_id", "", "put_image_use_event"),
    ("program_images", "image_id", "", "put_image_use_event"),
)


def upgrade() -> None:
    statements.replace_functions(revision)
    triggers = [
        _TRIGGER.format(name=name, table=table, change=change, condition=condition, function=function)
        for name, table, change, condition, function in _TRIGGERS
    ]
    for table, columns, condition, function in _CHANGED:
        old, new = (", ".join(f"{row}.{column}" for column in columns.split(" ")) for row in ("OLD", "NEW"))
        triggers.append(
            _TRIGGER.format(
                name=f"{function}_of_change",
                table=table,
                change="UPDATE",
                condition=f"WHEN (({old}) IS DISTINCT FROM ({new}) {condition})",
                function=function,
            )
        )
    statements.run("".join(triggers))


def downgrade() -> None:
    drops = [f"DROP TRIGGER {name} ON {table};\n" for name, table, _, _, _ in _TRIGGERS]
    drops += [f"DROP TRIGGER {function}_of_change ON {table};\n" for table, _, _, function in _CHANGED]
    statements.run("".join(drops))
    statements.restore_functions(revision)
    # Earlier servers cannot send these events.
    statements.run("DELETE FROM events WHERE resource_type IN ('user', 'grant', 'cluster', 'image');")
