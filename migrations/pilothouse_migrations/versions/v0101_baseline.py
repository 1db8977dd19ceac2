"""The schema of release 0.2.0.

Its text is in `baseline/` (types, tables by noun, views, policies, triggers, rights) and `functions/` (one function per
file). Ids below 0100 belong to databases from before 0.2.0; they are never used again.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0101"
down_revision = None
branch_labels = None
depends_on = None
serves_from = "0.2.0"

# In the order of their references to each other.
TABLES = (
    "types",
    "users",
    "clusters",
    "namespaces",
    "sessions",
    "api_keys",
    "containers",
    "volumes",
    "config",
    "operations",
    "work",
    "events",
    "audit",
    "usage",
)
# PostgreSQL reads the body of a function of this kind (`RETURN expression`) when it is created.
EARLIER_FUNCTIONS = ("app_reach", "app_known_reach")
AFTER_FUNCTIONS = ("views", "policies", "triggers", "grants", "rows")


def upgrade() -> None:
    # Only the roles that a function's own file names may call the function.
    statements.run("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;")
    for name in TABLES:
        statements.run_file(f"baseline/{name}.sql")
    # A function may call one that comes later, and read a view.
    statements.run("SET LOCAL check_function_bodies = off;")
    statements.create_functions(revision, EARLIER_FUNCTIONS)
    statements.run("RESET check_function_bodies;")
    for name in AFTER_FUNCTIONS:
        statements.run_file(f"baseline/{name}.sql")


def downgrade() -> None:
    statements.run_file("baseline/down.sql")
    # Some were dropped with the tables. In one statement their order does not matter.
    statements.drop_functions(revision)
