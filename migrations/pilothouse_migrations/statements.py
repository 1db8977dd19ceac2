"""What the migration modules share: running SQL text, role names, and row-level security in one shape.

Role names are configurable, so migrations write `@owner@`, `@app@`, `@system@` and `@maintenance@`; `run`
replaces them. The driver prepares each statement and takes only one at a time, so `run` also splits a text at
the semicolons that end a line, outside of dollar quotes.

A change to a function here changes the SQL of migrations that are already applied, and thereby their checksum;
`runner` then refuses to start. Add a new function instead of changing one that a released migration calls.
"""

from __future__ import annotations

from collections.abc import Iterator

from alembic import op
from sqlalchemy import text

from pilothouse_migrations.roles import DEFAULT_PREFIX, RoleNames

# One expression for all tables that belong to a namespace. The sub-selects make the planner evaluate the
# helper functions once for a statement instead of once for a row.
REACH = "(SELECT app_sees_all()) OR {column} = ANY ((SELECT app_namespace_ids())::bigint[])"


def split(sql: str) -> Iterator[str]:
    """Yield the single statements of `sql`, without their closing semicolon.

    A statement ends at a semicolon that ends a line; inside `$$` quotes a semicolon ends nothing.
    """
    buffer: list[str] = []
    for line in sql.splitlines():
        buffer.append(line)
        joined = "\n".join(buffer)
        if line.rstrip().endswith(";") and joined.count("$$") % 2 == 0:
            statement = joined.strip().removesuffix(";").strip()
            buffer.clear()
            if statement:
                yield statement
    rest = "\n".join(buffer).strip()
    if rest:
        yield rest


def run(sql: str) -> None:
    """Execute each statement of `sql` in the current migration, with the role names filled in."""
    names = RoleNames(str(op.get_context().opts.get("role_prefix", DEFAULT_PREFIX)))
    for token, name in names.tokens().items():
        sql = sql.replace(token, name)
    for statement in split(sql):
        # A colon would start a bind parameter; PostgreSQL's own colons must pass through unchanged.
        op.execute(text(statement.replace(":", r"\:")))


def row_level_security(table: str) -> None:
    """Switch row-level security on for `table`, for its owner too, and let the system role see all of it."""
    run(f"""
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY {table}_system_policy ON {table} TO @system@ USING (true) WITH CHECK (true);
""")


def belongs_to_namespace(
    table: str,
    *,
    policy: str | None = None,
    privileges: str = "SELECT, INSERT, UPDATE, DELETE",
    column: str = "namespace_id",
) -> None:
    """Protect `table` by the namespace in `column`: callers reach the rows of the namespaces they have a grant in.

    `policy` names the policy (default `<table>_access_policy`); `privileges` is what the app role may do;
    the system role may do everything.
    """
    row_level_security(table)
    reach = REACH.format(column=column)
    run(f"""
CREATE POLICY {policy or f"{table}_access_policy"} ON {table} TO @app@ USING ({reach}) WITH CHECK ({reach});
GRANT {privileges} ON {table} TO @app@;
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO @system@;
""")


def belongs_to_user(table: str, *, privileges: str = "SELECT, INSERT, UPDATE, DELETE") -> None:
    """Protect `table` by its `user_id`: callers reach their own rows; who sees every namespace reaches all."""
    row_level_security(table)
    reach = "user_id = (SELECT app_user_id()) OR (SELECT app_sees_all())"
    run(f"""
CREATE POLICY {table}_access_policy ON {table} TO @app@ USING ({reach}) WITH CHECK ({reach});
GRANT {privileges} ON {table} TO @app@;
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO @system@;
""")


def caller_function(name: str, arguments: str, columns: str, comment: str, query: str) -> None:
    """Create a function that answers a read in one message: it says who asks, and returns the rows of `query`.

    It is called in a transaction of its own, with which the identity ends, and runs as the role that calls it, under
    row-level security. Every name in `query` is qualified. Its plan is kept.
    """
    types = ", ".join(argument.split()[1] for argument in arguments.split(", "))
    run(f"""
CREATE FUNCTION {name}(p_user_id bigint, {arguments}) RETURNS TABLE ({columns})
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        PERFORM set_config('app.current_user_id', p_user_id::text, true);
        PERFORM set_config('app.reach', public.app_reach(), true);
        RETURN QUERY
{query.strip()};
    END
    $$;

COMMENT ON FUNCTION {name}(bigint, {types}) IS '{comment}';

GRANT EXECUTE ON FUNCTION {name}(bigint, {types}) TO @app@;
""")
