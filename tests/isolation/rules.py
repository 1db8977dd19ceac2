"""Rules for every existing table, view and function, read from PostgreSQL's catalogue.

Each rule is a query that finds violations, so that tables added later are checked without a change here.
"""

from __future__ import annotations

import asyncpg

_REQUEST_ROLES = "('pilothouse_app', 'pilothouse_system')"

RULES: dict[str, str] = {
    "row-level security is not enabled and forced": """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
          AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)""",
    "is not owned by the owner": """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
          AND c.relowner <> 'pilothouse_owner'::regrole""",
    "a policy is for everybody, so for the owner's views as well": """
        SELECT policyname FROM pg_policies WHERE schemaname = 'public' AND roles = '{public}'""",
    "a table the app role may touch has no policy for it": """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND has_any_column_privilege('pilothouse_app', c.oid, 'SELECT, INSERT, UPDATE')
          AND NOT EXISTS (SELECT FROM pg_policies p WHERE p.tablename = c.relname AND p.roles = '{pilothouse_app}')""",
    "the app role sees every row of a table that belongs to a namespace or user": """
        SELECT DISTINCT p.tablename FROM pg_policies p
        JOIN pg_attribute a ON a.attrelid = format('public.%I', p.tablename)::regclass
        WHERE p.schemaname = 'public' AND 'pilothouse_app' = ANY (p.roles) AND a.attname IN ('namespace_id', 'user_id')
          AND coalesce(p.qual, p.with_check) NOT LIKE '%app_namespace_ids%'
          AND coalesce(p.qual, p.with_check) NOT LIKE '%app_user_id%'""",
    "a partition is open to a role of request handling": f"""
        SELECT c.relname FROM pg_class c CROSS JOIN aclexplode(c.relacl) x
        WHERE c.relispartition AND c.relkind = 'r' AND x.grantee <> c.relowner
        UNION
        SELECT c.relname FROM pg_class c, pg_roles r
        WHERE c.relispartition AND c.relkind = 'r' AND r.rolname IN {_REQUEST_ROLES}
          AND has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')""",
    "a view runs with its owner's rights": """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
          AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false)""",
    "the app role may read a materialised view": """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'm'
          AND has_any_column_privilege('pilothouse_app', c.oid, 'SELECT')""",
    "something is granted to everybody": """
        SELECT c.relname FROM pg_class c CROSS JOIN aclexplode(c.relacl) x
        WHERE c.relnamespace = 'public'::regnamespace AND x.grantee = 0
        UNION ALL
        SELECT p.proname FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
        WHERE p.pronamespace = 'public'::regnamespace AND x.grantee = 0
        UNION ALL
        SELECT n.nspname FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) x
        WHERE n.nspname = 'public' AND x.grantee = 0""",
    "a function's search path is not pinned to the system's": """
        SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
          -- The names in a body that was parsed when it was made mean what they meant then.
          AND (p.prosecdef OR p.prosqlbody IS NULL)
          AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)""",
    "a function is not owned by the owner": """
        SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
          AND p.proowner <> 'pilothouse_owner'::regrole""",
    "the log, the events or their head can be written by a role of request handling": f"""
        SELECT c.relname FROM pg_class c, pg_roles r,
          unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
        WHERE c.oid IN ('operation_logs'::regclass, 'events'::regclass, 'stream_head'::regclass)
          AND r.rolname IN {_REQUEST_ROLES} AND has_table_privilege(r.oid, c.oid, privilege)""",
    "a role of request handling may truncate, refer to or put a trigger on a table": f"""
        SELECT c.relname FROM pg_class c, pg_roles r, unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
          AND r.rolname IN {_REQUEST_ROLES} AND has_table_privilege(r.oid, c.oid, privilege)""",
    "a role of request handling bypasses row-level security or owns something": f"""
        SELECT r.rolname FROM pg_roles r WHERE r.rolname IN {_REQUEST_ROLES}
          AND (r.rolbypassrls OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb
               OR pg_has_role(r.oid, 'pilothouse_owner', 'MEMBER')
               OR pg_has_role(r.oid, 'pilothouse_maintenance', 'MEMBER')
               OR has_schema_privilege(r.oid, 'public', 'CREATE')
               OR EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid))""",
    "a child of a container or volume is bound to it without the namespace": """
        SELECT k.conname FROM pg_constraint k
        WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid <> k.confrelid
          AND k.confrelid IN ('containers'::regclass, 'volumes'::regclass) AND cardinality(k.conkey) < 2""",
}


async def findings(connection: asyncpg.Connection) -> list[str]:
    """Returns one line for each violation of a rule. An empty list means that the catalogue isolates tenants."""
    found: list[str] = []
    for rule, query in RULES.items():
        found.extend(f"{row[0]}: {rule}" for row in await connection.fetch(query))
    return found
